"""A step that does not fit the memory is cut up until it does, and stays the same step."""

from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch.utils._python_dispatch import TorchDispatchMode

from alignment_core import align
from alignment_core.events import Event, MicroBatchChosen, PhaseChanged, StepCompleted
from alignment_core.spec import JobSpec
from alignment_core.training.micro_batch import MicroBatchTooLarge, Split
from tests.alignment_core.test_alignment import of_type
from tests.alignment_core.tiny import tiny_spec

torch.set_num_threads(1)


class SmallDevice(TorchDispatchMode):
    """No convolution finds room for more than so many images, wherever in forward or backward it is."""

    def __init__(self, most_images: int) -> None:
        super().__init__()
        self.most_images, self.num_refused = most_images, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "convolution" in str(func) and len(args[0]) > self.most_images:
            self.num_refused += 1
            raise torch.OutOfMemoryError(f"no room for {len(args[0])} images")
        return func(*args, **(kwargs or {}))


def spec_of(model: Path, pairs: Path, batch_size: int, micro_batch: str, **changes: object) -> JobSpec:
    """Two steps of four pairs."""
    training = {
        "steps": 2,
        "batch_size": batch_size,
        "gradient_accumulation_steps": 4 // batch_size,
        "learning_rate": 1e-3,
        "micro_batch": micro_batch,
    }
    return tiny_spec(model, pairs, **{"training": training, "evaluation": {}, **changes})


def run_on(device: SmallDevice, spec: JobSpec, workdir: Path, cache_dir: Path) -> list[Event]:
    """The events of a run whose steps have this device to themselves."""
    events: list[Event] = []
    with closing(align(spec, workdir, cache_dir=cache_dir)) as run, ExitStack() as stack:
        for event in run:
            events.append(event)
            if isinstance(event, PhaseChanged) and event.phase == "training":
                stack.enter_context(device)
            if isinstance(event, StepCompleted) and event.step == 2:
                return events
    raise AssertionError("the run ended before its steps")


def test_halves_divide_the_step() -> None:
    assert Split(64, 1).halved() == Split(32, 2)
    assert Split(6, 1).halved() == Split(3, 2)
    assert Split(3, 2).halved() == Split(1, 6)
    assert Split(1, 6).halved() is None


def test_the_step_is_halved_until_it_fits_and_its_numbers_are_those_of_that_split(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    small = SmallDevice(most_images=2)  # one pair
    events = run_on(small, spec_of(tiny_model, tiny_pairs, 4, "auto"), tmp_path / "found", cache_dir)
    assert small.num_refused == 2  # of four pairs, and of two
    (chosen,) = of_type(events, MicroBatchChosen)
    assert (chosen.batch_size, chosen.gradient_accumulation_steps) == (1, 4)
    whole = list(align(spec_of(tiny_model, tiny_pairs, 1, "given"), tmp_path / "given", cache_dir=cache_dir))
    found, given = ([step.metrics for step in of_type(one, StepCompleted)] for one in (events, whole))
    assert found == given  # bit for bit: what was tried in vain left no trace


def test_a_run_that_goes_on_is_cut_up_as_it_was(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = spec_of(tiny_model, tiny_pairs, 4, "auto")
    with closing(align(spec, tmp_path, cache_dir=cache_dir)) as run, ExitStack() as stack:
        for event in run:
            if isinstance(event, PhaseChanged) and event.phase == "training":
                stack.enter_context(SmallDevice(most_images=4))
            if isinstance(event, StepCompleted):
                break
    resumed = run_on(SmallDevice(most_images=100), spec, tmp_path, cache_dir)
    assert [event.batch_size for event in of_type(resumed, MicroBatchChosen)] == [2]


def test_what_does_not_fit_at_all_fails_as_it_is(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    for name, batch_size in (("auto", 4), ("given", 2)):
        with pytest.raises(MicroBatchTooLarge, match="no room for"):
            run_on(SmallDevice(1), spec_of(tiny_model, tiny_pairs, batch_size, name), tmp_path / name, cache_dir)


def test_other_methods_and_weights_in_shares_are_refused(tiny_model: Path, tiny_pairs: Path) -> None:
    kto = {"type": "diffusion_kto", "dataset": {"type": "local", "path": str(tiny_pairs)}}
    with pytest.raises(ValidationError, match="learn from pairs"):
        tiny_spec(tiny_model, tiny_pairs, method=kto, training={"micro_batch": "auto"})
    shares = {"device": "cpu", "processes": 2, "strategy": "fsdp2"}
    with pytest.raises(ValidationError, match="all make together"):
        spec_of(tiny_model, tiny_pairs, 4, "auto", resources=shares)
    assert spec_of(tiny_model, tiny_pairs, 4, "auto", resources={**shares, "strategy": "ddp"}).examples_per_step == 8
