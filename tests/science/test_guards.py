"""Do the guards tell a run that goes wrong from one that does not? On the demo's model, with its own judge."""

from pathlib import Path
from typing import Any

import pytest

from alignment_core import JobSpec, align
from alignment_core.events import Event, ProbeCompleted, ResultSelected, WarningRaised
from demo.assets import ASSETS
from demo.captions import train_captions

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

DPO = {
    "type": "diffusion_dpo",
    "dataset": {"type": "local", "path": str(ASSETS / "pairs.parquet")},
    "beta": 1000,
}
TRAINING = {"steps": 60, "batch_size": 16, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}
RUNAWAY = {"reference": {"type": "ema", "alpha": 0.3, "every": 1, "guard": None}}  # and three times the learning rate


def watched(workdir: Path, rewards: list[dict[str, Any]], **changes: Any) -> list[Event]:
    """A run of the demo's model with a probe every 20 steps of 16 prompts that the report does not use."""
    evaluation = {
        "prompts": (ASSETS / "prompts.txt").read_text(encoding="utf-8").splitlines(),
        "max_prompts": 16,
        "every": 20,
        "num_inference_steps": 12,
        "guidance_scale": 2.5,
        "batch_size": 32,
        "rewards": rewards,
        "prompt_following": {
            "type": "attribute_classifier",
            "weights": {"type": "local", "path": str(ASSETS / "classifiers" / "judge")},
        },
    }
    spec = {
        "model": {"type": "local", "path": str(ASSETS / "model")},
        "method": DPO,
        "training": TRAINING,
        "evaluation": evaluation,
        "resources": {"device": "cpu", "num_cpu_threads": 1},
        **changes,
    }
    return list(align(JobSpec.model_validate(spec), workdir / "run", cache_dir=workdir / "cache"))


def codes(events: list[Event]) -> set[str]:
    return {event.code for event in events if isinstance(event, WarningRaised)} - {"few_evaluation_prompts"}


def result_of(events: list[Event]) -> ResultSelected:
    (result,) = [event for event in events if isinstance(event, ResultSelected)]
    return result


COLOUR = [{"type": "colorfulness"}, {"type": "brightness"}]


def test_the_demo_job_is_left_alone(tmp_path: Path) -> None:
    events = watched(tmp_path, COLOUR, training={**TRAINING, "steps": 120})
    assert codes(events) == set()
    assert result_of(events).selected_by == "held_out_reward"


def test_a_reference_that_runs_away_trips_every_guard_on_its_way(tmp_path: Path) -> None:
    events = watched(tmp_path, COLOUR, training={**TRAINING, "learning_rate": 3e-3}, **RUNAWAY)
    assert codes(events) == {"reference_drift", "errors_rising", "diversity_falling", "reward_hacking"}


def test_rollback_saves_a_run_that_runs_away(tmp_path: Path) -> None:
    training = {**TRAINING, "learning_rate": 3e-3}
    events = watched(tmp_path, COLOUR, training=training, guards={"on_violation": "rollback"}, **RUNAWAY)
    result = result_of(events)
    assert (result.step, result.stopped_by) == (20, "reference_drift")
    (probe,) = [event for event in events if isinstance(event, ProbeCompleted)]
    assert probe.metrics["colorfulness_gain"] > 0.1
    assert probe.metrics["prompt_following_gain"] > -0.05


def test_small_files_at_the_price_of_every_shape_are_reward_hacking(tmp_path: Path) -> None:
    method = {
        "type": "tailorpo",
        "rewards": [{"type": "jpeg_size"}],
        "prompts": [caption.text for caption in train_captions()],
        "num_inference_steps": 10,
        "guidance_scale": 2.5,
    }
    training = {**TRAINING, "weight_decay": 1e-4}
    events = watched(
        tmp_path, [{"type": "jpeg_size"}, COLOUR[0]], method=method, training=training, adapter={"type": "full"}
    )
    assert {"reward_hacking", "diversity_falling"} <= codes(events)
