import itertools
import json
import math
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from alignment_core.events import (
    CheckpointSaved,
    EvaluationCompleted,
    PhaseChanged,
    PrecisionMeasured,
    ProbeCompleted,
    RunStarted,
    SamplesDrawn,
    StepCompleted,
    VaePrecisionChosen,
    ValidationCompleted,
    WarningRaised,
    event_from_json,
    event_to_json,
)
from service.store import events, jobs, leases, metrics, outputs, projects
from service.store.database import Store
from service.store.fence import Fenced
from service.store.models import Metric
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.base import StoredFile
from service.store.records.jobs import JobRecord
from tests.service.store.plans import explain, sent_by
from tests.service.store.test_leases import started

FILES = tuple(
    StoredFile(path=path, size_bytes=size, sha256=f"{size:064x}", object_key=f"projects/p/jobs/j/{path}")
    for path, size in (("manifest.json", 10), ("adapter/weights.safetensors", 1_000_000))
)


def step(number: int, **values: float) -> StepCompleted:
    return StepCompleted(
        step=number, total_steps=40, metrics=values or {"loss": 0.5}, step_seconds=0.1, eta_seconds=40.0 - number
    )


def saved(
    number: int, *, is_final: bool = False, is_best: bool = False, result_step: int | None = None
) -> CheckpointSaved:
    return CheckpointSaved(
        step=number,
        path=f"checkpoints/{number}",
        kind="lora",
        is_final=is_final,
        is_best=is_best,
        result_step=result_step,
        size_bytes=1_000_010,
    )


def lose(store: Store, job: JobRecord) -> None:
    """The worker of `job` vanishes and another takes over."""
    attempt = job.attempt
    while (found := jobs.get(store, PROJECT, job.id)) and found.attempt == attempt:
        leases.renew(store, job.id, attempt, -1)
        leases.requeue_lost(store, 99)
        leases.claim(store, job.id, "successor", 60)


def test_events_are_numbered_from_one_and_read_in_order(store: Store, held: JobRecord) -> None:
    recorded = [events.record_event(store, held.id, 1, step(number)) for number in (1, 2, 3)]
    recorded += events.record_events(store, held.id, 1, [step(4), step(5)])
    assert [event.seq for event in recorded] == [1, 2, 3, 4, 5]
    assert events.list_events(store, PROJECT, held.id) == tuple(recorded)
    assert events.list_events(store, PROJECT, held.id, after_seq=2, limit=2) == tuple(recorded[2:4])
    assert events.list_events(store, PROJECT, held.id, after_seq=5) == ()


def test_an_event_is_kept_as_it_was_told(store: Store, held: JobRecord) -> None:
    event = WarningRaised(code="odd", message="a \0 byte, an é and a \N{PILE OF POO}", step=3)
    events.record_event(store, held.id, 1, event)
    (found,) = events.list_events(store, PROJECT, held.id)
    assert found.data == json.loads(event_to_json(event))
    assert (found.type, found.attempt, found.time) == ("warning_raised", 1, event.time)
    assert found.id.startswith("evt_")


def test_another_projects_outputs_are_invisible(store: Store, held: JobRecord) -> None:
    events.record_event(store, held.id, 1, step(1))
    events.record_event(store, held.id, 1, saved(1), FILES)
    events.record_event(store, held.id, 1, SamplesDrawn(step=1, path="grid.png", prompts=["a"]), FILES[:1])
    events.record_event(store, held.id, 1, EvaluationCompleted(step=1, path="report.json", report={"a": 1}))
    outputs.put_log(store, held.id, 1, "text")
    (checkpoint,) = outputs.list_checkpoints(store, PROJECT, held.id)
    other = projects.create_project(store, "other").id
    assert events.list_events(store, other, held.id) == ()
    assert metrics.metrics(store, other, held.id) == ()
    assert outputs.list_checkpoints(store, other, held.id) == ()
    assert outputs.get_checkpoint(store, other, checkpoint.id) is None
    assert outputs.list_samples(store, other, held.id) == ()
    assert outputs.get_report(store, other, held.id) is None
    assert outputs.list_logs(store, other, held.id) == ()


def test_progress_follows_the_steps(store: Store, held: JobRecord) -> None:
    events.record_events(store, held.id, 1, [started(40), PhaseChanged(phase="training"), step(10)])
    job = jobs.get(store, PROJECT, held.id)
    assert job is not None
    assert job.phase == "training"
    assert job.progress.model_dump() == {"step": 10, "total": 40, "percent": 25.0, "eta_seconds": 30.0}
    assert job.updated_at > held.updated_at
    assert job.last_seq == 3


def test_progress_of_a_resumed_attempt_starts_at_its_checkpoint(store: Store, held: JobRecord) -> None:
    events.record_events(store, held.id, 1, [started(40), step(30)])
    lose(store, held)
    resumed: RunStarted = started(40).model_copy(update={"resumed_from_step": 20})
    events.record_event(store, held.id, 2, resumed)
    job = jobs.get(store, PROJECT, held.id)
    assert job is not None
    assert job.progress.step == 20


def test_all_or_nothing_of_a_batch_is_written(store: Store, held: JobRecord) -> None:
    with pytest.raises(AssertionError, match="files are in the object store"):
        events.record_events(store, held.id, 1, [step(1), saved(1)])
    assert events.list_events(store, PROJECT, held.id) == ()
    assert metrics.metrics(store, PROJECT, held.id) == ()


def test_figures_that_json_does_not_have_become_null(store: Store, held: JobRecord) -> None:
    events.record_event(store, held.id, 1, step(1, loss=math.nan, margin=math.inf, accuracy=0.5))
    (row,) = metrics.metrics(store, PROJECT, held.id)
    assert row.metrics == {"loss": None, "margin": None, "accuracy": 0.5}
    (event,) = events.list_events(store, PROJECT, held.id)
    assert event.data["metrics"] == row.metrics


def test_a_checkpoint_is_visible_with_all_its_files(store: Store, held: JobRecord) -> None:
    events.record_event(store, held.id, 1, saved(20), FILES)
    events.record_event(store, held.id, 1, saved(40, is_final=True), FILES)
    first, last = outputs.list_checkpoints(store, PROJECT, held.id)
    assert (first.step, first.is_final, last.step, last.is_final) == (20, False, 40, True)
    assert first.size_bytes == 1_000_010
    assert set(first.files) == set(FILES)
    assert outputs.get_checkpoint(store, PROJECT, last.id) == outputs.latest_checkpoint(store, held.id) == last
    job = jobs.get(store, PROJECT, held.id)
    assert job is not None
    assert job.latest_checkpoint_id == last.id


def test_one_checkpoint_is_the_best_and_the_last_one_names_the_result(store: Store, held: JobRecord) -> None:
    for number, is_best in ((10, True), (20, True), (30, False)):
        events.record_event(store, held.id, 1, saved(number, is_best=is_best), FILES)
    found = outputs.list_checkpoints(store, PROJECT, held.id)
    assert [(one.step, one.is_best) for one in found] == [(10, False), (20, True), (30, False)]
    job = jobs.get(store, PROJECT, held.id)
    assert job is not None
    assert job.result_checkpoint_id is None
    events.record_event(store, held.id, 1, saved(40, is_final=True, result_step=10), FILES)
    job = jobs.get(store, PROJECT, held.id)
    assert job is not None
    assert job.result_checkpoint_id == found[0].id
    needed = outputs.checkpoints_to_resume(store, held.id)
    assert [one.step for one in needed] == [10, 20, 40], "the result, the best and the latest"


def test_held_out_rewards_are_metrics_of_their_own(store: Store, held: JobRecord) -> None:
    events.record_event(store, held.id, 1, step(5))
    probe = ProbeCompleted(step=5, num_prompts=4, metrics={"brightness": 0.4}, is_best=True)
    events.record_event(store, held.id, 1, probe)
    (row,) = metrics.metrics(store, PROJECT, held.id)
    assert row.metrics == {"loss": 0.5, "held_out/brightness": 0.4}
    (row,) = metrics.metrics(store, PROJECT, held.id, keys=["held_out/brightness"])
    assert row.metrics == {"held_out/brightness": 0.4}


def test_a_cancelled_job_keeps_its_last_checkpoint(store: Store, held: JobRecord) -> None:
    events.record_event(store, held.id, 1, saved(20), FILES)
    jobs.request_cancel(store, PROJECT, held.id)
    cancelled = leases.finish(store, held.id, 1, "stopped")
    last = outputs.latest_checkpoint(store, held.id)
    assert last is not None
    assert cancelled.latest_checkpoint_id == last.id


def test_what_a_resumed_attempt_does_again_replaces_what_the_lost_one_left(store: Store, held: JobRecord) -> None:
    sample = SamplesDrawn(step=2, path="grid.png", prompts=["a red circle"])
    report = EvaluationCompleted(step=2, path="report.json", report={"verdict": "unknown"})
    for event, files in ((step(1, loss=1.0), ()), (saved(2), FILES), (sample, FILES[:1]), (report, ())):
        events.record_event(store, held.id, 1, event, files)
    (old,) = outputs.list_checkpoints(store, PROJECT, held.id)
    lose(store, held)
    newer = report.model_copy(update={"report": {"verdict": "improved"}})
    for event, files in ((step(1, loss=2.0), ()), (saved(2), FILES[:1]), (sample, FILES[1:]), (newer, ())):
        events.record_event(store, held.id, 2, event, files)

    assert [row.metrics for row in metrics.metrics(store, PROJECT, held.id)] == [{"loss": 2.0}]
    (new,) = outputs.list_checkpoints(store, PROJECT, held.id)
    assert (new.id, new.attempt, new.files) == (old.id, 2, FILES[:1])
    assert new.size_bytes == 10
    (picture,) = outputs.list_samples(store, PROJECT, held.id)
    assert (picture.attempt, picture.object_key) == (2, FILES[1].object_key)
    found = outputs.get_report(store, PROJECT, held.id)
    assert found is not None
    assert found.report == {"verdict": "improved"}
    told = [event.attempt for event in events.list_events(store, PROJECT, held.id)]
    assert told == [1, 1, 1, 1, 1, 2, 2, 2, 2], "events are history, and history is not rewritten"


@pytest.mark.parametrize("is_together", [True, False])
def test_events_that_speak_of_one_step_add_up_until_another_attempt_does(
    store: Store, held: JobRecord, is_together: bool
) -> None:
    half = PrecisionMeasured(precision="bf16", logit_error=0.3, logit_rms=2.0, num_examples=4)
    vae = VaePrecisionChosen(precision="bf16", latent_errors={"fp16": None, "bf16": 4.5})
    told = [vae, half, half.model_copy(update={"logit_error": 0.4})]
    if is_together:
        events.record_events(store, held.id, 1, told)
    else:
        for event in told:
            events.record_event(store, held.id, 1, event)
    (row,) = metrics.metrics(store, PROJECT, held.id)
    assert (row.step, row.metrics) == (0, {"latent_error": 4.5, "logit_error": 0.4, "logit_rms": 2.0})
    lose(store, held)
    events.record_event(store, held.id, 2, vae)
    assert [row.metrics for row in metrics.metrics(store, PROJECT, held.id)] == [{"latent_error": 4.5}]


def test_metrics_are_chosen_by_name_and_range(store: Store, held: JobRecord) -> None:
    events.record_events(store, held.id, 1, [step(number, loss=float(number), margin=0.0) for number in range(1, 11)])
    events.record_event(store, held.id, 1, ValidationCompleted(step=5, metrics={"loss": 7.0}))
    rows = metrics.metrics(store, PROJECT, held.id, keys=["loss"], from_step=4, to_step=6)
    assert [(row.step, row.metrics) for row in rows] == [(4, {"loss": 4.0}), (5, {"loss": 5.0}), (6, {"loss": 6.0})]
    rows = metrics.metrics(store, PROJECT, held.id, keys=["validation/loss"])
    assert [(row.step, row.metrics) for row in rows] == [(5, {"validation/loss": 7.0})]
    rows = metrics.metrics(store, PROJECT, held.id, from_step=5, to_step=5)
    assert rows[0].metrics == {"loss": 5.0, "margin": 0.0, "validation/loss": 7.0}
    assert metrics.metrics(store, PROJECT, held.id, keys=["nothing", 'odd"\0key']) == ()
    assert metrics.metrics(store, PROJECT, held.id, keys=[]) == ()


def test_thinned_metrics_keep_both_ends_and_every_split(store: Store, held: JobRecord) -> None:
    batch = [step(number) for number in range(1, 102)]
    events.record_events(store, held.id, 1, batch)
    events.record_events(
        store, held.id, 1, [ValidationCompleted(step=number, metrics={"loss": 1.0}) for number in (33, 66)]
    )
    rows = metrics.metrics(store, PROJECT, held.id, max_points=5)
    assert [row.step for row in rows if "loss" in row.metrics] == [1, 26, 51, 76, 101]
    assert [row.step for row in rows if "validation/loss" in row.metrics] == [33, 66]


def test_thinning_keeps_the_ends_for_every_size(store: Store, held: JobRecord) -> None:
    for count in range(1, 24):
        events.record_event(store, held.id, 1, step(100 + count))
        steps = range(101, 101 + count)
        for max_points in (1, 2, 3, 5, 7, 16, 23, 40):
            kept = [row.step for row in metrics.metrics(store, PROJECT, held.id, max_points=max_points)]
            assert len(kept) == len(set(kept)) == min(count, max_points)
            assert kept == sorted(kept)
            assert kept[-1] == steps[-1]
            assert kept[0] == steps[0] or max_points == 1
            gaps = {after - before for before, after in itertools.pairwise(kept)}
            assert not gaps or max(gaps) - min(gaps) <= 1


def test_thinned_metrics_bind_a_handful_of_values_and_read_what_they_answer(store: Store, held: JobRecord) -> None:
    """PostgreSQL takes 65,535 parameters in a statement, and a million steps are not read to show a thousand."""
    with store.write() as session:
        some = {"job_id": held.id, "project_id": PROJECT, "attempt": 1, "time": datetime.now(UTC)}
        rows = [{**some, "split": "train", "step": number, "figures": {"loss": 0.5}} for number in range(1, 70_001)]
        session.execute(sa.insert(Metric), rows)
    sent = sent_by(store)
    kept = metrics.metrics(store, PROJECT, held.id, max_points=66_000)
    assert (len(kept), kept[0].step, kept[-1].step) == (66_000, 1, 70_000)
    assert all(len(parameters) < 50 for _, parameters in sent)
    sent.clear()
    assert len(metrics.metrics(store, PROJECT, held.id, max_points=100, keys=["loss"])) == 100
    for statement, parameters in sent:
        plan = explain(store, statement, parameters)
        assert not any(word in plan for word in ("Seq Scan on metrics", "SCAN metrics")), plan


def test_names_of_metrics_are_kept_with_the_job(store: Store, held: JobRecord) -> None:
    events.record_events(store, held.id, 1, [step(1, loss=1.0), step(2, margin=0.5)])
    events.record_event(store, held.id, 1, ValidationCompleted(step=2, metrics={"loss": 1.0}))
    events.record_event(store, held.id, 1, step(3, loss=1.0))
    job = jobs.summary(store, PROJECT, held.id)
    assert job is not None
    assert job.metric_names == ("loss", "margin", "validation/loss")


def test_events_do_not_repeat_what_the_job_holds(store: Store, held: JobRecord) -> None:
    """Every attempt begins with the spec and ends with the report, and either may hold thousands of prompts."""
    events.record_event(store, held.id, 1, started(40))
    report = EvaluationCompleted(step=2, path="report.json", report={"verdict": "improved"})
    events.record_event(store, held.id, 1, report)
    first, last = events.list_events(store, PROJECT, held.id)
    assert "spec" not in first.data
    assert first.data["spec_sha256"] == started(40).spec_sha256
    assert "report" not in last.data
    for found in (first, last):
        assert event_from_json(json.dumps(found.data)).type == found.type
    kept = outputs.get_report(store, PROJECT, held.id)
    assert kept is not None
    assert kept.report == {"verdict": "improved"}


def test_logs_keep_their_end(store: Store, held: JobRecord) -> None:
    outputs.put_log(store, held.id, 1, "old")
    outputs.put_log(store, held.id, 1, "x" * outputs.LOG_TAIL_CHARACTERS + "the\0end")
    (log,) = outputs.list_logs(store, PROJECT, held.id)
    assert len(log.text) == outputs.LOG_TAIL_CHARACTERS
    assert log.text.endswith("the\N{REPLACEMENT CHARACTER}end")
    lose(store, held)
    with pytest.raises(Fenced):
        outputs.put_log(store, held.id, 1, "late")
    outputs.put_log(store, held.id, 2, "second")
    assert [(log.attempt, log.text[-6:]) for log in outputs.list_logs(store, PROJECT, held.id)] == [
        (1, "he\N{REPLACEMENT CHARACTER}end"),
        (2, "second"),
    ]
