from datetime import timedelta

import pytest

from alignment_core.events import RunCompleted, RunFailed, RunStarted, StepCompleted
from service.store import events, jobs, leases
from service.store.database import Store
from service.store.fence import Fenced
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.base import JobError
from service.store.records.jobs import JobRecord
from service.store.states import InvalidTransition

CRASHED = JobError(code="crashed", message="the process ended with 1", category="system", retryable=True)
LONG = 60.0
ENDED = -1.0  # a lease that was over before it began


def state_of(store: Store, job: JobRecord) -> str:
    found = jobs.get(store, PROJECT, job.id)
    assert found is not None
    return found.state


def started(total_steps: int = 40) -> RunStarted:
    return RunStarted(
        spec={},
        spec_sha256="0" * 64,
        learning_rate=1e-5,
        examples_per_step=64,
        total_steps=total_steps,
        device="cpu",
        precision="fp32",
        versions={},
    )


def test_a_claim_gives_the_job_a_lease_and_an_attempt(store: Store, job: JobRecord) -> None:
    claim = leases.claim(store, job.id, "worker-1", LONG)
    assert claim is not None
    held = claim.job
    assert (held.state, held.attempt, held.worker_id) == ("starting", 1, "worker-1")
    assert held.started_at is not None
    assert held.lease_expires_at == claim.lease_expires_at
    assert timedelta(seconds=59) < claim.lease_expires_at - held.started_at <= timedelta(seconds=60)
    assert jobs.get(store, PROJECT, job.id) == held


def test_a_job_is_claimed_once(store: Store, job: JobRecord) -> None:
    assert leases.claim(store, job.id, "worker-1", LONG) is not None
    assert leases.claim(store, job.id, "worker-2", LONG) is None
    assert leases.claim(store, "job_" + "0" * 26, "worker-2", LONG) is None


def test_the_worker_hears_what_is_asked_of_it(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "w", LONG)
    assert leases.renew(store, job.id, 1, LONG) == leases.poll(store, job.id, 1) == "go_on"
    jobs.request_pause(store, PROJECT, job.id)
    assert leases.renew(store, job.id, 1, LONG) == leases.poll(store, job.id, 1) == "pause"
    jobs.request_cancel(store, PROJECT, job.id)
    assert leases.renew(store, job.id, 1, LONG) == leases.poll(store, job.id, 1) == "cancel"
    leases.finish(store, job.id, 1, "stopped")
    assert leases.renew(store, job.id, 1, LONG) == leases.poll(store, job.id, 1) == "lost"


def test_a_renewed_lease_survives_the_sweep(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "w", ENDED)
    leases.renew(store, job.id, 1, LONG)
    assert leases.requeue_lost(store, 3) == leases.Sweep((), ())
    assert state_of(store, job) == "starting"


def test_a_lost_job_is_queued_again_as_the_next_attempt(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "worker-1", ENDED)
    events.record_event(store, job.id, 1, started())
    assert leases.requeue_lost(store, 3) == leases.Sweep((job.id,), ())
    waiting = jobs.get(store, PROJECT, job.id)
    assert waiting is not None
    assert (waiting.state, waiting.worker_id, waiting.lease_expires_at, waiting.phase) == ("queued", None, None, None)
    again = leases.claim(store, job.id, "worker-2", LONG)
    assert again is not None
    assert again.attempt == 2
    assert again.job.started_at == waiting.started_at, "a job starts once"


def test_the_events_say_that_a_worker_was_lost(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "worker-1", ENDED)
    leases.requeue_lost(store, 3)
    (event,) = events.list_events(store, PROJECT, job.id)
    assert (event.type, event.data["code"], event.attempt) == ("warning_raised", "worker_lost", 1)


def test_a_job_that_loses_every_worker_fails_by_the_systems_fault(store: Store, job: JobRecord) -> None:
    for attempt in (1, 2, 3):
        claim = leases.claim(store, job.id, "w", ENDED)
        assert claim is not None
        assert claim.attempt == attempt
        swept = leases.requeue_lost(store, 3)
    assert swept == leases.Sweep((), (job.id,))
    failed = jobs.get(store, PROJECT, job.id)
    assert failed is not None
    assert failed.state == "failed"
    assert failed.finished_at is not None
    assert failed.error is not None
    assert (failed.error.code, failed.error.category) == ("attempts_exhausted", "system")


def test_pauses_do_not_use_up_attempts(store: Store, job: JobRecord) -> None:
    for attempt in range(1, 6):
        leases.claim(store, job.id, "w", LONG)
        jobs.request_pause(store, PROJECT, job.id)
        assert leases.finish(store, job.id, attempt, "stopped").state == "paused"
        jobs.resume(store, PROJECT, job.id)
    leases.claim(store, job.id, "w", ENDED)
    assert leases.requeue_lost(store, 3).requeued == (job.id,)


@pytest.mark.parametrize(
    ("request_stop", "state"), [(jobs.request_cancel, "cancelled"), (jobs.request_pause, "paused")]
)
def test_a_lost_worker_does_not_undo_a_request_to_stop(store: Store, job: JobRecord, request_stop, state) -> None:
    leases.claim(store, job.id, "w", ENDED)
    request_stop(store, PROJECT, job.id)
    assert leases.requeue_lost(store, 1) == leases.Sweep((), (job.id,))
    assert state_of(store, job) == state


def test_a_stale_attempt_writes_nothing(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "worker-1", ENDED)
    leases.requeue_lost(store, 3)
    leases.claim(store, job.id, "worker-2", LONG)
    before = jobs.get(store, PROJECT, job.id), events.list_events(store, PROJECT, job.id)
    step = StepCompleted(step=9, total_steps=40, metrics={"loss": 1.0}, step_seconds=0.1)
    for write in (
        lambda: events.record_event(store, job.id, 1, step),
        lambda: events.record_events(store, job.id, 1, [step, RunCompleted(step=9)]),
        lambda: leases.finish(store, job.id, 1, "succeeded"),
        lambda: leases.finish(store, job.id, 1, "failed", CRASHED),
        lambda: leases.give_back(store, job.id, 1),
    ):
        with pytest.raises(Fenced):
            write()
    assert leases.renew(store, job.id, 1, 3600) == "lost"
    assert (jobs.get(store, PROJECT, job.id), events.list_events(store, PROJECT, job.id)) == before


def test_nothing_is_written_after_the_end(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "w", LONG)
    ended = leases.finish(store, job.id, 1, "succeeded")
    with pytest.raises(Fenced):
        events.record_event(store, job.id, 1, RunCompleted(step=40))
    with pytest.raises(Fenced):
        leases.finish(store, job.id, 1, "failed", CRASHED)
    assert jobs.get(store, PROJECT, job.id) == ended


def test_a_job_goes_through_its_states_as_its_run_tells(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "w", LONG)
    events.record_event(store, job.id, 1, started())
    assert state_of(store, job) == "running"
    events.record_event(store, job.id, 1, RunCompleted(step=40))
    assert state_of(store, job) == "finalizing"
    ended = leases.finish(store, job.id, 1, "succeeded")
    assert (ended.state, ended.is_terminal, ended.error) == ("succeeded", True, None)
    assert ended.worker_id is None
    assert ended.lease_expires_at is None


def test_a_failure_keeps_its_error(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "w", LONG)
    said = RunFailed(code="loss_not_finite", message="loss is NaN", category="user", retryable=False, hint="lower it")
    events.record_event(store, job.id, 1, said)
    error = JobError(**said.model_dump(include={"code", "message", "category", "retryable", "hint"}))
    assert leases.finish(store, job.id, 1, "failed", error).error == error
    assert state_of(store, job) == "failed"

    assert told(store, job) == ["run_failed"], "the run said so itself"


def told(store: Store, job: JobRecord) -> list[str]:
    return [event.type for event in events.list_events(store, PROJECT, job.id)]


def test_a_failure_that_the_run_did_not_tell_is_an_event_too(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "w", LONG)
    leases.finish(store, job.id, 1, "failed", CRASHED)
    (event,) = events.list_events(store, PROJECT, job.id)
    assert (event.type, event.attempt) == ("run_failed", 1)
    assert {name: event.data[name] for name in ("code", "message", "category", "retryable")} == CRASHED.model_dump(
        exclude={"hint"}
    )


def test_a_job_that_lost_too_many_workers_says_so_in_its_events(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "host.internal:17", ENDED)
    leases.requeue_lost(store, 1)
    lost, failed = events.list_events(store, PROJECT, job.id)
    assert (lost.data["code"], failed.data["code"]) == ("worker_lost", "attempts_exhausted")
    assert "host.internal" not in lost.data["message"], "workers are the operator's business"


def test_a_run_that_ends_before_it_hears_the_cancel_has_succeeded(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "w", LONG)
    jobs.request_cancel(store, PROJECT, job.id)
    assert leases.finish(store, job.id, 1, "succeeded").state == "succeeded"


def test_a_run_that_stops_unasked_is_not_called_stopped(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "w", LONG)
    with pytest.raises(InvalidTransition):
        leases.finish(store, job.id, 1, "stopped")
    assert state_of(store, job) == "starting"


def test_a_worker_that_shuts_down_gives_its_job_back_at_once(store: Store, job: JobRecord) -> None:
    for attempt in range(1, 6):
        leases.claim(store, job.id, "w", LONG)
        assert leases.give_back(store, job.id, attempt).state == "queued"
    leases.claim(store, job.id, "w", ENDED)
    assert leases.requeue_lost(store, 2).requeued == (job.id,), "giving back is not losing"


def test_giving_back_a_job_that_was_cancelled_cancels_it(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "w", LONG)
    jobs.request_cancel(store, PROJECT, job.id)
    assert leases.give_back(store, job.id, 1).state == "cancelled"


FULL = JobError(code="object_store_full", message="the object store is full", category="capacity", retryable=True)


def test_a_job_whose_surroundings_fail_is_paused_with_the_reason_and_can_go_on(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "w", LONG)
    events.record_event(store, job.id, 1, started())
    paused = leases.suspend(store, job.id, 1, FULL)
    assert (paused.state, paused.error, paused.is_terminal, paused.worker_id) == ("paused", FULL, False, None)
    last = events.list_events(store, PROJECT, job.id)[-1]
    assert (last.type, last.data["code"]) == ("warning_raised", "object_store_full")
    assert "the object store is full" in last.data["message"]
    resumed = jobs.resume(store, PROJECT, job.id)
    assert resumed is not None
    assert (resumed.state, resumed.error) == ("queued", None)


def test_a_job_that_was_to_be_cancelled_is_not_suspended(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "w", LONG)
    jobs.request_cancel(store, PROJECT, job.id)
    ended = leases.suspend(store, job.id, 1, FULL)
    assert (ended.state, ended.error) == ("cancelled", None)
    with pytest.raises(Fenced):
        leases.suspend(store, job.id, 1, FULL)


def test_a_run_that_failed_is_not_run_again_when_its_worker_is_lost_too(store: Store, job: JobRecord) -> None:
    leases.claim(store, job.id, "w", ENDED)
    events.record_event(
        store, job.id, 1, RunFailed(code="dataset_unusable", message="no rows", category="user", retryable=False)
    )
    assert leases.requeue_lost(store, 3) == leases.Sweep((), (job.id,))
    failed = jobs.get(store, PROJECT, job.id)
    assert failed is not None
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error.code == "dataset_unusable"
