"""`training.compile`: said with what speaks for it, kept by a run that goes on, and no trouble where it cannot be had."""

from contextlib import closing
from pathlib import Path

import pytest
from pydantic import ValidationError

from alignment_core import align
from alignment_core.events import CompilingWeighed, Event, PhaseChanged, StepCompleted, WarningRaised
from alignment_core.spec import JobSpec
from alignment_core.training import compiling
from tests.alignment_core.test_alignment import of_type
from tests.alignment_core.tiny import tiny_spec

pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # which dynamo looks at
TRAINING = {"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}


def spec_of(model: Path, pairs: Path, compile_: str, **training: object) -> JobSpec:
    return tiny_spec(model, pairs, training={**TRAINING, "compile": compile_, **training}, evaluation={})


def numbers_of(events: list[Event]) -> list[dict[str, float]]:
    return [step.metrics for step in of_type(events, StepCompleted)]


def test_what_is_left_out_changes_no_hash_and_fsdp2_is_refused(tiny_model: Path, tiny_pairs: Path) -> None:
    off, none = spec_of(tiny_model, tiny_pairs, "off"), tiny_spec(tiny_model, tiny_pairs, training=TRAINING)
    assert off.sha256() == none.model_copy(update={"evaluation": off.evaluation}).sha256()
    assert spec_of(tiny_model, tiny_pairs, "on").sha256() != off.sha256()
    with pytest.raises(ValidationError, match=r"training\.compile compiles blocks"):
        tiny_spec(
            tiny_model,
            tiny_pairs,
            training={**TRAINING, "compile": "on"},
            resources={"processes": 2, "strategy": "fsdp2"},
        )


def test_a_run_that_is_not_compiled_is_the_plain_one_to_the_bit_and_says_why(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = list(align(spec_of(tiny_model, tiny_pairs, "off"), tmp_path / "off", cache_dir=cache_dir))
    assert not of_type(plain, CompilingWeighed)
    found = list(align(spec_of(tiny_model, tiny_pairs, "auto"), tmp_path / "auto", cache_dir=cache_dir))
    (weighed,) = of_type(found, CompilingWeighed)
    assert not weighed.is_compiled
    assert weighed.num_graphs > 8
    assert weighed.saved_seconds < weighed.compiling_seconds
    assert numbers_of(found) == numbers_of(plain)  # weighing leaves no trace
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = list(align(spec_of(tiny_model, tiny_pairs, "on"), tmp_path / "on", cache_dir=cache_dir))
    (warning,) = [one for one in of_type(found, WarningRaised) if one.code == "compile_unavailable"]
    assert "no-such-compiler" in warning.message
    assert numbers_of(found) == numbers_of(plain)


def test_a_run_that_goes_on_does_not_weigh_again(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = spec_of(tiny_model, tiny_pairs, "auto")
    with closing(align(spec, tmp_path, cache_dir=cache_dir)) as run:
        for event in run:
            if isinstance(event, StepCompleted):
                break
    assert not of_type(list(align(spec, tmp_path, cache_dir=cache_dir)), CompilingWeighed)


@pytest.mark.slow
def test_compiled_steps_are_the_plain_ones_to_float_rounding_and_go_on_as_they_began(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiling, "BACKEND", "eager")  # a compiler of graphs takes minutes
    plain = list(align(spec_of(tiny_model, tiny_pairs, "off"), tmp_path / "off", cache_dir=cache_dir))
    spec = spec_of(tiny_model, tiny_pairs, "on")
    begun: list[Event] = []
    with closing(align(spec, tmp_path / "on", cache_dir=cache_dir)) as run:
        for event in run:
            begun.append(event)
            if isinstance(event, StepCompleted):
                break
    phases = [event.phase for event in of_type(begun, PhaseChanged)]
    assert phases[phases.index("compiling") :] == ["compiling", "training"]
    again = list(align(spec, tmp_path / "on", cache_dir=cache_dir))
    assert not [one for one in of_type(begun + again, WarningRaised) if one.code == "compile_unavailable"]
    for compiled, expected in zip(numbers_of(begun + again), numbers_of(plain), strict=True):
        assert compiled["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert compiled["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-4)
