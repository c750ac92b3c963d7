"""Shares that are not equal, and runs that go on in another number of processes."""

from pathlib import Path
from typing import Any

import pytest

from alignment_core.alignment import find_resumable
from alignment_core.errors import CheckpointError
from alignment_core.spec import JobSpec
from tests.alignment_core.collective.pair import Pair
from tests.alignment_core.collective.test_equality import assert_same_report
from tests.alignment_core.collective.two import Circumstances, Done, farthest, in_one, in_two, in_twos
from tests.alignment_core.rollouts.test_online import METHODS, online_spec
from tests.alignment_core.tiny import save_pairs, tiny_spec

pytestmark = pytest.mark.slow

ROUNDING = 2e-5  # of weights that Adam moved by about 4e-3
TRAINING = {"steps": 4, "batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}
ONE_PROMPT = {"prompts": ["a red circle"], "rewards": [{"type": "brightness"}], "seeds_per_prompt": 1}
SHORT = {"num_inference_steps": 2, "guidance_scale": 1.0, "batch_size": 160, "bootstrap_resamples": 100}


def few_pairs(model: Path, pairs: Path, **changes: Any) -> JobSpec:
    """Three pairs to train on and one held out, one prompt to judge by, and a guard that looks at three winners."""
    training = {**TRAINING, "validation_fraction": 0.25, "validate_every": 2}
    guard = {"num_samples": 3, "delta": 10.0}
    return tiny_spec(
        model,
        pairs,
        **{
            "training": training,
            "evaluation": {**ONE_PROMPT, **SHORT},
            "reference": {"type": "hard_copy", "every": 2, "guard": guard},
            **changes,
        },
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = ["a red circle", "a blue square", "a green circle", "a red square"]
    return save_pairs(tmp_path_factory.mktemp("few") / "pairs.parquet", 4, lambda index: prompts[index])


def specs_of(model: Path, pairs: Path) -> dict[str, JobSpec]:
    one_prompt = {**METHODS["d3po"], "prompts": ["a red circle"]}
    return {
        "few": few_pairs(model, pairs),
        "few_in_shares": few_pairs(model, pairs, adapter={"type": "full"}),
        "one_prompt": online_spec(model, one_prompt, evaluation={**ONE_PROMPT, **SHORT}),
    }


@pytest.fixture(scope="module")
def two(
    pair: Pair,
    tiny_model: Path,
    pairs: Path,
    tiny_pairs: Path,
    cache_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Done]:
    folder, specs = tmp_path_factory.mktemp("two"), specs_of(tiny_model, pairs)
    shared_out = {name: in_twos(spec, "fsdp2" if name == "few_in_shares" else "ddp") for name, spec in specs.items()}
    return in_two(pair, shared_out, folder, cache_dir)


@pytest.mark.parametrize("name", ["few", "few_in_shares", "one_prompt"])
def test_a_process_that_nothing_is_left_for_changes_nothing(
    name: str, two: dict[str, Done], tiny_model: Path, pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    one, done = in_one(specs_of(tiny_model, pairs)[name], tmp_path, cache_dir), two[name]
    assert done.events[-1]["type"] == "run_completed"
    assert done.metric("loss") == pytest.approx(one.metric("loss"), rel=2e-3, abs=1e-5)
    last = done.events[-1]["step"]
    assert farthest(done.checkpoint(last), one.checkpoint(last)) < ROUNDING
    assert done.steps_of("validation_completed", "metrics") == pytest.approx(
        one.steps_of("validation_completed", "metrics"), rel=2e-3, abs=1e-4
    )
    assert_same_report(done.report, one.report)


# --- another number of processes -----------------------------------------------------------------------------------


def going_on(model: Path, pairs: Path) -> dict[str, JobSpec]:
    """As one process runs them; four examples a step."""
    given: dict[str, Any] = {"training": {**TRAINING, "gradient_accumulation_steps": 2}, "evaluation": {}}
    given |= {"checkpoints": {"every": 2}, "reference": {"type": "ema", "alpha": 0.5}}
    return {
        "ddp": tiny_spec(model, pairs, **given),
        "fsdp2": tiny_spec(model, pairs, **{**given, "adapter": {"type": "full"}}),
    }


@pytest.fixture(scope="module")
def alone(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Done]:
    folder = tmp_path_factory.mktemp("alone")
    return {name: in_one(spec, folder / name, cache_dir) for name, spec in going_on(tiny_model, tiny_pairs).items()}


def test_two_processes_go_on_from_what_one_has_saved_with_its_exact_state(
    pair: Pair, alone: dict[str, Done], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    specs = {name: in_twos(spec, name) for name, spec in going_on(tiny_model, tiny_pairs).items()}
    begun = {name: str(alone[name].checkpoint(2)) for name in specs}
    two = in_two(
        pair, specs, tmp_path, cache_dir, {name: Circumstances(resume_from=folder) for name, folder in begun.items()}
    )
    for name, done in two.items():
        assert done.events[0]["resumed_from_step"] == 2
        assert [event["step"] for event in done.of_type("step_completed")] == [3, 4]
        assert farthest(done.checkpoint(4), alone[name].checkpoint(4)) < ROUNDING


def test_a_work_folder_of_another_number_of_processes_is_refused_by_its_number(
    alone: dict[str, Done], tiny_model: Path, tiny_pairs: Path
) -> None:
    two = in_twos(going_on(tiny_model, tiny_pairs)["ddp"]).resolved("sd")
    with pytest.raises(CheckpointError, match="of a run in 1 process, and this one is in 2") as refused:
        find_resumable(alone["ddp"].workdir, two)
    assert refused.value.code == "workdir_in_use"
    assert "resume_from" in str(refused.value.hint)
