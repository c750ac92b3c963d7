"""Whole runs of a tiny model under guard: they warn, stop and go back, and stopping or killing them changes nothing."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from alignment_core import JobSpec, align
from alignment_core.checkpoints import STATE, complete, folder_of, read_manifest
from alignment_core.events import (
    CheckpointSaved,
    EvaluationCompleted,
    Event,
    ProbeCompleted,
    ResultSelected,
    RunCompleted,
    StepCompleted,
    WarningRaised,
)
from tests.alignment_core.test_alignment import of_type, same_weights, stop_after
from tests.alignment_core.tiny import tiny_spec

pytestmark = pytest.mark.usefixtures("shapes_unchecked")

EVALUATION = {
    "prompts": ["a red circle", "a blue square", "a green circle", "a red square"],
    "max_prompts": 2,
    "probe_prompts": 2,
    "every": 2,
    "rewards": [{"type": "brightness"}],
    "num_inference_steps": 2,
    "guidance_scale": 1.0,
    "batch_size": 160,
    "bootstrap_resamples": 200,
}
# what the third step of the tiny run passes and no step before it
ALWAYS = {"margin_saturation": {"max_loss": 1.0, "min_accuracy": 0.6, "window": 1}}


def guarded(model: Path, pairs: Path, guards: dict[str, Any], **changes: Any) -> JobSpec:
    return tiny_spec(model, pairs, guards=guards, **{"evaluation": EVALUATION, **changes})


def codes(events: list[Event]) -> list[str]:
    """Of warnings, less those that twelve pairs and two prompts cannot avoid."""
    expected = ("few_evaluation_prompts", "evaluation_prompts_seen")
    return [event.code for event in of_type(events, WarningRaised) if event.code not in expected]


def test_a_healthy_run_is_left_alone_and_probed(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    events = list(align(guarded(tiny_model, tiny_pairs, {}), tmp_path, cache_dir=cache_dir))
    assert codes(events) == []
    probes = of_type(events, ProbeCompleted)
    assert [probe.step for probe in probes] == [2, 4, 6]
    assert probes[0].metrics.keys() == {"brightness", "brightness_gain", "diversity", "diversity_ratio"}
    (result,) = of_type(events, ResultSelected)
    values = {probe.step: probe.metrics["brightness"] for probe in probes}
    assert result.step == max(values, key=lambda step: (values[step], -step))
    assert result.selected_by == "held_out_reward"
    (report,) = of_type(events, EvaluationCompleted)
    assert (report.step, report.report["selected_by"]) == (result.step, "held_out_reward")
    assert report.report["policy"]["step"] == result.step
    assert isinstance(events[-1], RunCompleted)


@pytest.mark.parametrize("direction", [1, -1])
def test_the_best_checkpoint_is_kept_marked_and_is_the_result(
    direction: int, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    reward = {"type": "weighted_sum", "parts": [{"reward": {"type": "brightness"}, "weight": direction}]}
    evaluation = {**EVALUATION, "rewards": [reward]}
    spec = guarded(tiny_model, tiny_pairs, {}, evaluation=evaluation, checkpoints={"every": 1, "keep_last": 1})
    events = list(align(spec, tmp_path, cache_dir=cache_dir))
    best = [probe.step for probe in of_type(events, ProbeCompleted) if probe.is_best][-1]
    assert {read_manifest(folder).step for folder in complete(tmp_path / "checkpoints")} == {best, 6}
    assert read_manifest(folder_of(tmp_path / "checkpoints", best)).is_best
    last = of_type(events, CheckpointSaved)[-1]
    assert (last.step, last.is_final, last.result_step, last.is_best) == (6, True, best, best == 6)


def test_without_probes_the_last_checkpoint_is_the_result(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    events = list(align(tiny_spec(tiny_model, tiny_pairs), tmp_path, cache_dir=cache_dir))
    (result,) = of_type(events, ResultSelected)
    assert (result.step, result.selected_by, result.stopped_by) == (6, "last_step", None)


def test_a_warning_is_said_once_and_changes_nothing(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    for name, guards in (("watched", ALWAYS), ("blind", {"margin_saturation": None})):
        events = list(align(guarded(tiny_model, tiny_pairs, guards), tmp_path / name, cache_dir=cache_dir))
        assert codes(events) == (["margin_saturation"] if name == "watched" else [])
    folders = [folder_of(tmp_path / name / "checkpoints", 6) for name in ("watched", "blind")]
    assert same_weights(*folders)


def test_stop_ends_training_there_and_the_report_says_so(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = guarded(
        tiny_model, tiny_pairs, {**ALWAYS, "on_violation": "stop"}, checkpoints={"every": 2, "result": "last"}
    )
    events = list(align(spec, tmp_path, cache_dir=cache_dir))
    last = of_type(events, StepCompleted)[-1].step
    assert last == 3
    (result,) = of_type(events, ResultSelected)
    assert (result.step, result.last_step, result.stopped_by) == (last, last, "margin_saturation")
    assert "margin_saturation ended training" in result.message
    (report,) = of_type(events, EvaluationCompleted)
    assert (report.step, report.report["stopped_by"], report.report["last_step"]) == (last, "margin_saturation", last)
    assert of_type(events, CheckpointSaved)[-1].is_final
    again = list(align(spec, tmp_path, cache_dir=cache_dir))
    assert not of_type(again, StepCompleted)
    assert of_type(again, ResultSelected)[0].model_dump(exclude={"time"}) == result.model_dump(exclude={"time"})


def test_rollback_without_probes_goes_to_the_checkpoint_before_the_violation(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    guards = {"margin_saturation": {**ALWAYS["margin_saturation"], "on_violation": "rollback"}}
    evaluation = {key: value for key, value in EVALUATION.items() if key != "every"}
    spec = guarded(tiny_model, tiny_pairs, guards, evaluation=evaluation, checkpoints={"every": 1, "keep_last": 1})
    events = list(align(spec, tmp_path, cache_dir=cache_dir))
    (result,) = of_type(events, ResultSelected)
    violated = of_type(events, StepCompleted)[-1].step
    assert (result.step, result.selected_by, result.last_step) == (violated - 1, "rollback", violated)
    kept = {read_manifest(folder).step for folder in complete(tmp_path / "checkpoints")}
    assert kept == {violated - 1, violated}
    again = list(align(spec, tmp_path, cache_dir=cache_dir))
    assert of_type(again, ResultSelected)[0].step == violated - 1


@pytest.mark.parametrize("action", ["warn", "stop", "rollback"])
def test_a_guarded_run_that_was_left_decides_as_an_undisturbed_one(
    action: str, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = guarded(tiny_model, tiny_pairs, {**ALWAYS, "on_violation": action})
    whole = of_type(list(align(spec, tmp_path / "whole", cache_dir=cache_dir)), ResultSelected)[0]
    for left_at in (2, 3):
        stop_after(spec, tmp_path / f"{left_at}", cache_dir, left_at)
        resumed = of_type(list(align(spec, tmp_path / f"{left_at}", cache_dir=cache_dir)), ResultSelected)[0]
        assert resumed.model_dump(exclude={"time"}) == whole.model_dump(exclude={"time"})
        folders = [folder_of(tmp_path / name / "checkpoints", whole.last_step) for name in ("whole", f"{left_at}")]
        assert same_weights(*folders)
        texts = [(folder / STATE / "watch.json").read_text() for folder in folders]
        assert texts[0] == texts[1]


def test_a_diverged_run_goes_back_instead_of_failing(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    training = {
        "steps": 50,
        "batch_size": 2,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1.0,
        "max_grad_norm": 1e30,
        "weight_decay": 1e36,
        "validation_fraction": 0.0,
    }
    evaluation = {key: value for key, value in EVALUATION.items() if key != "every"}
    spec = guarded(
        tiny_model,
        tiny_pairs,
        {"on_violation": "rollback", "errors_rising": None, "margin_saturation": None},
        training=training,
        adapter={"type": "full"},
        checkpoints={"every": 1},
        evaluation={**evaluation, "rewards": [], "prompts": None},
    )
    events = list(align(spec, tmp_path, cache_dir=cache_dir))
    (result,) = of_type(events, ResultSelected)
    assert result.stopped_by == "not_finite"
    assert "not_finite" in codes(events)
    assert isinstance(events[-1], RunCompleted)
    weights = [load_file(path) for path in (tmp_path / result.path).rglob("diffusion_pytorch_model.safetensors")]
    assert all(tensor.isfinite().all() for file in weights for tensor in file.values())


def test_a_best_checkpoint_that_was_lost_is_told_and_chosen_anew(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = guarded(tiny_model, tiny_pairs, {}, checkpoints={"every": 1})
    stop_after(spec, tmp_path, cache_dir, 3)
    for file in sorted(folder_of(tmp_path / "checkpoints", 2).rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    folder_of(tmp_path / "checkpoints", 2).rmdir()
    events = list(align(spec, tmp_path, cache_dir=cache_dir))
    assert "best_checkpoint_missing" in codes(events)
    assert of_type(events, ResultSelected)[0].step in (4, 6)


def test_a_probe_that_shares_its_prompts_with_the_report_says_so(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    evaluation = {**EVALUATION, "max_prompts": 3}
    spec = guarded(tiny_model, tiny_pairs, {}, evaluation=evaluation)
    assert "probe_prompts_in_report" in codes(list(align(spec, tmp_path, cache_dir=cache_dir)))


def test_a_frozen_reference_is_told_once(tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path) -> None:
    guard = {"metric": "eps_dist", "delta": 1e-12, "num_samples": 4}
    reference = {"type": "hard_copy", "every": 1, "guard": guard}
    events = list(align(guarded(tiny_model, tiny_pairs, {}, reference=reference), tmp_path, cache_dir=cache_dir))
    assert codes(events).count("reference_frozen") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation": {"every": 2}}, "there are none"),
        ({"checkpoints": {"result": "best"}, "evaluation": {}}, "set evaluation.every"),
        ({"evaluation": {**EVALUATION, "rewards": [{"type": "brightness", "name": "diversity"}]}}, "named diversity"),
    ],
    ids=["nothing_to_probe", "no_probe", "reserved_name"],
)
def test_a_choice_that_cannot_be_made_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_spec(Path("model"), Path("pairs"), **changes)
