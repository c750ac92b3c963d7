"""What a run has said so far: bounded, exact through interruptions, without times."""

import math
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment_core import align
from alignment_core.checkpoints import STATE, folder_of
from alignment_core.errors import CheckpointError
from alignment_core.events import EvaluationCompleted, Event, StepCompleted, ValidationCompleted, WarningRaised
from alignment_core.reports import EvaluationReport
from alignment_core.training.history import MAX_POINTS, History, recorded
from alignment_core.training.run import HISTORY
from tests.alignment_core.tiny import tiny_spec


def step(number: int, **metrics: float) -> StepCompleted:
    return StepCompleted(step=number, total_steps=10**6, metrics=metrics, step_seconds=0.1)


def history_of(num_steps: int) -> History:
    history = History()
    for number in range(1, num_steps + 1):
        history.observe(step(number, loss=float(number), **({"drift": 2.0} if number % 32 == 0 else {})))
    return history


@given(st.integers(1, 5000))
def test_curves_have_at_most_500_points_and_lose_no_step(num_steps: int) -> None:
    history = history_of(num_steps)
    track = history.tracks["training"]
    assert len(track.points) <= MAX_POINTS
    assert sum(point.num for point in track.points) == num_steps
    assert sum(point.sums["loss"] for point in track.points) == num_steps * (num_steps + 1) / 2
    (loss,) = [curve for curve in history.curves() if curve.metric == "loss"]
    assert loss.steps[-1] == num_steps
    assert loss.steps == sorted(set(loss.steps))


def test_short_runs_are_kept_to_the_step_and_rare_metrics_are_not_diluted() -> None:
    curves = {curve.metric: curve for curve in history_of(500).curves()}
    assert curves["loss"].values == [float(number) for number in range(1, 501)]
    assert curves["drift"].steps == list(range(32, 501, 32))
    (drift,) = [curve for curve in history_of(4000).curves() if curve.metric == "drift"]
    assert set(drift.values) == {2.0}


@given(st.integers(1, 3000), st.integers(1, 3000))
def test_a_history_that_was_saved_goes_on_as_if_it_had_not_been(first: int, more: int) -> None:
    history = history_of(first)
    read = History.model_validate_json(history.model_dump_json())
    for number in range(first + 1, first + more + 1):
        for one in (history, read):
            one.observe(step(number, loss=math.sin(number) / 3))
    assert read == history


def test_a_warning_that_every_attempt_finds_again_is_told_once(tmp_path: Path) -> None:
    seen = WarningRaised(code="evaluation_prompts_seen", message="2 of 4")
    before, after = History(), History()
    before.observe(seen)
    before.observe(WarningRaised(code="loss_vanished", message="gone", step=7))
    before.save(tmp_path / "history.json")
    after.observe(seen.model_copy())
    after.restore(tmp_path / "history.json")
    assert [warning.code for warning in after.warnings] == ["evaluation_prompts_seen", "loss_vanished"]


def test_a_checkpoint_without_history_begins_anew_and_a_malformed_one_is_refused(tmp_path: Path) -> None:
    history = History()
    history.restore(tmp_path / "missing.json")
    assert history == History()
    (tmp_path / "broken.json").write_text('{"tracks": 3}')
    with pytest.raises(CheckpointError, match=r"broken\.json"):
        history.restore(tmp_path / "broken.json")


def test_what_is_recorded_was_told_before_the_caller_heard_of_it() -> None:
    closed = []

    def events() -> Generator[Event, None, str]:
        try:
            yield step(1, loss=1.0)
            yield ValidationCompleted(step=1, metrics={"loss": 2.0})
            return "the run"
        finally:
            closed.append(True)

    history = History()
    with closing(recorded(events(), history)) as stream:
        next(stream)
        assert [curve.values for curve in history.curves()] == [[1.0]]
    assert closed == [True], "leaving closes what is recorded, which saves"

    returned = []

    def whole() -> Generator[Event, None, None]:
        returned.append((yield from recorded(events(), history)))

    assert len(list(whole())) == 2
    assert returned == ["the run"]
    assert {(curve.split, curve.metric) for curve in history.curves()} == {("training", "loss"), ("validation", "loss")}


def test_the_curves_of_an_interrupted_run_are_those_of_an_undisturbed_one(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs)
    reports = []
    for name, stops in (("whole", ()), ("broken", (1, 3, 4))):
        for last in stops:
            with closing(align(spec, tmp_path / name, cache_dir=cache_dir)) as events:
                for event in events:
                    if isinstance(event, StepCompleted) and event.step == last:
                        break
        (done,) = [
            event
            for event in align(spec, tmp_path / name, cache_dir=cache_dir)
            if isinstance(event, EvaluationCompleted)
        ]
        reports.append(EvaluationReport.model_validate(done.report))
    whole, broken = reports
    assert broken.curves == whole.curves
    assert [curve.steps for curve in whole.curves if curve.metric == "loss"] == [[1, 2, 3, 4, 5, 6]]
    assert broken.warnings == whole.warnings
    files = [folder_of(tmp_path / name / "checkpoints", 6) / STATE / HISTORY for name in ("whole", "broken")]
    saved, resumed = (History.model_validate_json(file.read_bytes()) for file in files)
    assert saved.tracks == resumed.tracks
