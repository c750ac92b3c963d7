"""What befalls one process befalls all: memory that is too small for a step, half precision, recordings, a checkpoint beside the training."""

from pathlib import Path
from typing import Any

import pytest

from alignment_core.spec import JobSpec
from tests.alignment_core.collective.pair import Pair, new_pair
from tests.alignment_core.collective.two import (
    Circumstances,
    Done,
    farthest,
    in_one,
    in_two,
    in_twos,
    said_by_second,
)
from tests.alignment_core.tiny import UNJUDGED, tiny_spec

pytestmark = pytest.mark.slow

ROUNDING = 2e-5  # of weights that Adam moved by about 3e-3
TRAINING = {"steps": 3, "batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}
FULL, LORA = {"type": "full"}, {"type": "lora", "rank": 2}

HALF = {"training": {**TRAINING, "precision": "bf16"}}
CASES: dict[str, tuple[dict[str, Any], str, Circumstances]] = {
    "small": ({"training": {**TRAINING, "micro_batch": "auto"}}, "ddp", Circumstances(3, most_images=(100, 2))),
    "recorded": ({}, "ddp", Circumstances(is_recorded=True)),
    "half": (HALF, "ddp", Circumstances()),
    "half_shares": (HALF, "fsdp2", Circumstances()),
    "half_full_shares": ({**HALF, "adapter": FULL}, "fsdp2", Circumstances()),
    "uncompiled": ({"training": {**TRAINING, "compile": "on"}}, "ddp", Circumstances(lacks_compiler=1)),
    "beside": ({"adapter": FULL}, "fsdp2", Circumstances(saves_in_background=True)),
    "blocks": ({"training": {**TRAINING, "block_shuffle": {"rows": 2, "blocks": 2}}}, "ddp", Circumstances()),
    "remembered": ({"training": {**TRAINING, "reference_cache": {"draws": 1}}}, "ddp", Circumstances()),
}


def spec_of(name: str, model: Path, pairs: Path) -> JobSpec:
    changes = {
        "adapter": LORA,
        "training": TRAINING,
        "evaluation": UNJUDGED,
        "checkpoints": {"every": 1, "keep_last": 9},
    }
    return tiny_spec(model, pairs, **{**changes, **CASES[name][0]})


@pytest.fixture(scope="module")
def two(
    pair: Pair, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Done]:
    specs = {name: in_twos(spec_of(name, tiny_model, tiny_pairs), strategy=one[1]) for name, one in CASES.items()}
    return in_two(pair, specs, tmp_path_factory.mktemp("two"), cache_dir, {name: one[2] for name, one in CASES.items()})


@pytest.mark.parametrize("name", ["small", "recorded", "uncompiled", "beside", "blocks", "remembered"])
def test_two_processes_are_one_whatever_befalls_them(
    name: str, two: dict[str, Done], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = spec_of(name, tiny_model, tiny_pairs)
    plain = spec.model_copy(update={"training": spec.training.model_copy(update={"compile": "off"})})
    one, done = in_one(plain, tmp_path, cache_dir), two[name]
    for step in (1, 2, 3):
        assert farthest(done.checkpoint(step), one.checkpoint(step)) < ROUNDING


@pytest.mark.parametrize("name", ["half", "half_shares", "half_full_shares"])
def test_all_processes_measure_the_rounding_of_all_first_batches(
    name: str, two: dict[str, Done], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    in_alone = in_one(spec_of(name, tiny_model, tiny_pairs), tmp_path, cache_dir)
    (mine,), (others,), (alone,) = (
        run.of_type("precision_measured") for run in (two[name], said_by_second(two[name]), in_alone)
    )
    assert two[name].metric("loss") == pytest.approx(in_alone.metric("loss"), rel=0.1)  # beta times a rounding
    for figure in ("logit_error", "logit_rms", "num_examples"):
        assert mine[figure] == others[figure] == pytest.approx(alone[figure], rel=1e-3)


def test_a_step_that_is_too_large_for_one_process_is_cut_up_by_all(two: dict[str, Done]) -> None:
    """On the second one's device is room for one pair, and the first one's has no end."""
    for done in (two["small"], said_by_second(two["small"])):
        chosen = [(one["batch_size"], one["gradient_accumulation_steps"]) for one in done.of_type("micro_batch_chosen")]
        assert chosen == [(1, 2)]


def test_all_processes_tell_of_a_checkpoint_that_was_written_beside_the_training_after_the_same_step(
    two: dict[str, Done],
) -> None:
    kinds = ("step_completed", "checkpoint_saved")
    first, second = (
        [(event["type"], event["step"]) for event in run.events if event["type"] in kinds]
        for run in (two["beside"], said_by_second(two["beside"]))
    )
    assert first == second
    assert [step for kind, step in first if kind == "checkpoint_saved"] == [1, 2, 3]


def test_what_one_machine_cannot_compile_no_process_compiles(two: dict[str, Done]) -> None:
    for done in (two["uncompiled"], said_by_second(two["uncompiled"])):
        (warning,) = [one for one in done.of_type("warning_raised") if one["code"] == "compile_unavailable"]
        assert "no-such-compiler" in warning["message"]


def test_processes_that_ask_for_no_device_are_two_where_there_is_no_gpu(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    """Processes of their own: what the first run takes for its device, all that follow in it have."""
    brief = {"training": {**TRAINING, "steps": 1}, "resources": {"device": "auto"}, "evaluation": UNJUDGED}
    spec = tiny_spec(tiny_model, tiny_pairs, adapter=FULL, **brief)
    with new_pair(tmp_path) as others:
        specs = {strategy: in_twos(spec, strategy=strategy) for strategy in ("fsdp2", "ddp")}
        found = in_two(others, specs, tmp_path, cache_dir)
    one = in_one(spec, tmp_path / "one", cache_dir)
    for done in found.values():
        assert farthest(done.checkpoint(1), one.checkpoint(1)) < ROUNDING
