"""A worker's hold on a job: claim, renew, finish, give back, and the sweep for the holds that were lost.

The attempt number that `claim` hands out is a fencing token. Every later write names it, and a write with an old one
changes nothing and raises `Fenced`: then the worker kills its training process and leaves.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.events import RunFailed, WarningRaised
from service.store.database import Store, now
from service.store.events import append
from service.store.fence import Fenced, held_by, hold
from service.store.jobs import enter, record_of
from service.store.lease_clock import lease_now
from service.store.models import Checkpoint, Job
from service.store.records.base import JobError
from service.store.records.jobs import Claim, JobRecord, PauseKeeps
from service.store.states import HELD, JobState, Verb, after

JobSignal = Literal["go_on", "pause", "discard", "cancel", "lost"]
"""What a worker should do with its training process: `discard` is a pause that does not wait for it to save, and `lost` means that the job
is no longer this attempt's."""

End = Literal["succeeded", "failed", "stopped"]
_END_VERBS: dict[End, Verb] = {"succeeded": "succeed", "failed": "fail", "stopped": "stop"}


@dataclass(frozen=True)
class LostAttempt:
    """An attempt whose worker did not renew its lease, by the time it was found."""

    job_id: str
    attempt: int
    claimed_at: datetime
    found_at: datetime
    traceparent: str | None


@dataclass(frozen=True)
class Sweep:
    """What a sweep changed: ids that are queued again, ids that ended or paused, and the attempts that were lost with them."""

    requeued: tuple[str, ...]
    ended: tuple[str, ...]
    lost: tuple[LostAttempt, ...] = field(default=(), compare=False)  # the same with times, for who traces them


def claim(store: Store, job_id: str, worker_id: str, lease_seconds: float) -> Claim | None:
    """Take a queued job, as its next attempt; None when it is not queued, so of many workers one gets it."""
    with store.write() as session:
        expires_at, time = lease_now(session) + timedelta(seconds=lease_seconds), now(session)
        row = session.scalars(
            sa.update(Job)
            .where(Job.id == job_id, Job.state == "queued")
            .values(
                state=after("queued", "claim"),
                phase=None,
                attempt=Job.attempt + 1,
                worker_id=worker_id,
                lease_expires_at=expires_at,
                attempt_started_at=time,
                started_at=sa.func.coalesce(Job.started_at, sa.literal(time, Job.started_at.type)),
                updated_at=time,
            )
            .returning(Job)
        ).one_or_none()
        if row is None:
            return None
        return Claim(job=record_of(row), attempt=row.attempt, lease_expires_at=expires_at, traceparent=row.traceparent)


def renew(store: Store, job_id: str, attempt: int, lease_seconds: float) -> JobSignal:
    """Extend the lease and say what is asked of the worker; `lost` when the attempt no longer holds the job."""
    with store.write() as session:
        found = session.execute(
            sa.update(Job)
            .where(*held_by(job_id, attempt))
            .values(lease_expires_at=lease_now(session) + timedelta(seconds=lease_seconds))
            .returning(Job.state, Job.pause_keeps)
        ).one_or_none()
        return _signal(found)


def poll(store: Store, job_id: str, attempt: int) -> JobSignal:
    """The signal without the renewal: one read, cheap enough for every second."""
    with store.read() as session:
        query = sa.select(Job.state, Job.pause_keeps).where(*held_by(job_id, attempt))
        return _signal(session.execute(query).one_or_none())


def finish(store: Store, job_id: str, attempt: int, end: End, error: JobError | None = None) -> JobRecord:
    """End the attempt. `stopped` makes a pausing job paused and a cancelling one cancelled; `failed` needs an error.

    A failure that the run did not tell itself becomes an event here, so that whoever follows the events hears of it.
    Raises `Fenced`, and `InvalidTransition` when the run stopped though nobody asked: `give_back` is for that.
    """
    assert (error is not None) == (end == "failed"), "an error belongs to a failure, and to nothing else"
    with store.write() as session:
        row, time = hold(session, job_id, attempt), now(session)
        if error is None:
            row.error, row.phase = None, None
        else:  # the phase says where it failed
            _fail(session, row, error, time)
        enter(session, row, after(row.state, _END_VERBS[end]), time)
        return record_of(row)


def suspend(store: Store, job_id: str, attempt: int, error: JobError) -> JobRecord:
    """Pause a job that nothing is wrong with, since what it needs stays away; `error` says what. Raises `Fenced`.

    One whose cancel was asked for is cancelled instead.
    """
    with store.write() as session:
        row, time = hold(session, job_id, attempt), now(session)
        state = after(row.state, "suspend")
        row.error = None if state == "cancelled" else error.model_dump(mode="json")
        if state == "paused":
            message = f"{error.message}; the job is paused"
            append(session, row, WarningRaised(code=error.code, message=message, step=row.step, time=time))
        enter(session, row, state, time)
        return record_of(row)


def give_back(store: Store, job_id: str, attempt: int) -> JobRecord:
    """Leave the job to the next worker at once, as one that shuts down does; it keeps its place and does not count as lost.

    A job whose pause or cancel was asked for is paused or cancelled instead. Raises `Fenced`.
    """
    with store.write() as session:
        row = hold(session, job_id, attempt)
        row.error = None
        enter(session, row, after(row.state, "give_back"), now(session))
        if row.state == "paused" and row.pause_keeps == "last_checkpoint":
            row.step = session.scalars(
                sa.select(Checkpoint.step).where(Checkpoint.id == row.latest_checkpoint_id)
            ).one()
        return record_of(row)


def requeue_lost(store: Store, max_attempts: int) -> Sweep:
    """Take every job whose lease ended from its worker: queued again, or failed when `max_attempts` workers were lost.

    A run that had said that it failed is not run again: then only its worker's last word was lost.
    """
    requeued, ended, attempts = [], [], []
    with store.write() as session:
        time = now(session)
        lost = session.scalars(
            sa.select(Job)
            .where(Job.state.in_(HELD), Job.lease_expires_at < lease_now(session))
            .order_by(Job.id)
            .with_for_update(skip_locked=True)
        ).all()
        for row in lost:
            message = f"the worker of attempt {row.attempt} stopped renewing its lease"
            append(session, row, WarningRaised(code="worker_lost", message=message, step=row.step, time=time))
            attempts.append(LostAttempt(row.id, row.attempt, row.attempt_started_at or time, time, row.traceparent))
            state = _take_away(session, row, max_attempts, time)
            enter(session, row, state, time)
            (requeued if state == "queued" else ended).append(row.id)
    return Sweep(tuple(requeued), tuple(ended), tuple(attempts))


def _take_away(session: Session, row: Job, max_attempts: int, time: datetime) -> JobState:
    """Count the loss; the state that follows from it, and the error that belongs to a failure."""
    row.num_lost += 1
    state = after(row.state, "give_back")
    if state != "queued":  # the stop that was asked for
        row.error = None
        return state
    if row.error is None and row.num_lost >= max_attempts:
        _fail(session, row, _exhausted(row.num_lost), time)
    return state if row.error is None else after(row.state, "fail")


def _fail(session: Session, row: Job, error: JobError, time: datetime) -> None:
    """Note why the job fails, as its error and, unless the run has said so itself, as an event."""
    if row.error is None:
        append(session, row, RunFailed(**error.model_dump(), time=time))
    row.error = error.model_dump(mode="json")


def _signal(found: sa.Row[JobState, PauseKeeps | None] | None) -> JobSignal:
    match None if found is None else (found.state, found.pause_keeps):
        case None:
            return "lost"
        case ("cancelling", _):
            return "cancel"
        case ("pausing", "last_checkpoint"):
            return "discard"
        case ("pausing", _):
            return "pause"
        case _:
            return "go_on"


def _exhausted(num_lost: int) -> JobError:
    return JobError(
        code="attempts_exhausted",
        message=f"{num_lost} workers were lost while they ran this job",
        category="system",
        retryable=True,
        hint="Workers vanish when they are killed or run out of memory; try a smaller batch_size, or ask the operator.",
    )


__all__ = [
    "End",
    "Fenced",
    "JobSignal",
    "LostAttempt",
    "Sweep",
    "claim",
    "finish",
    "give_back",
    "poll",
    "renew",
    "requeue_lost",
    "suspend",
]
