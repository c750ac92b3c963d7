"""What workers do with jobs: claims, beats, what they record and how an attempt ends. Any attempt may do so at any time, the lost ones too."""

from datetime import datetime, timedelta
from typing import Any, Literal

from alignment_core.events import Event
from benchmarks.simulation import told
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.world import LEASE_SECONDS, Attempt, Outcome, World, judge, pick
from service.store import leases
from service.store.quotas import by_month
from service.store.records.base import JobError
from service.store.states import TRANSITIONS, Verb
from worker.recording import record

End = Literal["succeeded", "failed", "stopped", "give_back", "suspend"]
VERBS: dict[End, Verb] = {
    "succeeded": "succeed",
    "failed": "fail",
    "stopped": "stop",
    "give_back": "give_back",
    "suspend": "suspend",
}
AWAY = JobError(code="object_store_full", message="no room", category="capacity", retryable=True)


def go(world: World, job: told.Job, verb: Verb) -> None:
    """Take an entry of the table, and count what an attempt took that ends by it."""
    claimed_at = job.claimed_at
    world.told.go(job, verb, world.clock.time)
    if claimed_at is not None and not job.is_held:
        for month, seconds in by_month(claimed_at, world.clock.time):
            world.told.seconds[month] = world.told.seconds.get(month, 0.0) + seconds * job.processes


def claim(world: World, index: int, death: Death | None) -> None:
    queued = [one for one in world.told.jobs.values() if one.state == "queued"]
    job = pick(queued if queued and index else world.told.jobs.values(), index)
    time = world.clock.time
    outcome = world.act(lambda: leases.claim(world.store, job.id, f"worker {index}", LEASE_SECONDS), death)
    if not outcome.died:
        assert (outcome.value is not None) == (job.state == "queued"), f"claimed while {job.state}"
    if outcome.happened and job.state == "queued":
        go(world, job, "claim")
        job.attempt, job.claimed_at = job.attempt + 1, time
        job.lease_ends_at = time + timedelta(seconds=LEASE_SECONDS)
        if outcome.value is not None:
            latest = world.told.checkpoints.get(job.latest or "")
            workdir = world.root / job.id / f"attempt-{job.attempt}"
            world.attempts.append(Attempt(outcome.value, workdir, 0 if latest is None else latest.step))


def held_job(world: World, attempt: Attempt) -> told.Job | None:
    """The job that the attempt holds, by the record; None where it holds none any more."""
    job = world.told.jobs.get(attempt.claim.job.id)
    return job if job is not None and job.is_held and job.attempt == attempt.claim.attempt else None


def renew(world: World, index: int) -> None:
    attempt = pick(world.attempts, index)
    job, time = held_job(world, attempt), world.clock.time
    job_id, number = attempt.claim.job.id, attempt.claim.attempt
    assert leases.poll(world.store, job_id, number) == _signal(job)
    assert world.act(lambda: leases.renew(world.store, job_id, number, LEASE_SECONDS)).value == _signal(job)
    if job is not None:
        job.lease_ends_at = time + timedelta(seconds=LEASE_SECONDS)


def _signal(job: told.Job | None) -> leases.JobSignal:
    match None if job is None else job.state:
        case None:
            return "lost"
        case "cancelling":
            return "cancel"
        case "pausing":
            assert job is not None
            return "discard" if job.discards else "pause"
        case _:
            return "go_on"


def tell(world: World, attempt: Attempt, event: Event, death: Death | None) -> told.Job | None:
    """Have the worker record an event; the job, where it was recorded."""
    job = held_job(world, attempt)
    outcome = world.act(lambda: record(world.parts, attempt.claim, attempt.workdir, [event]), death)
    if not judge(outcome, allowed=job is not None) or job is None:
        return None
    job.events.append((job.attempt, event.type))
    return job


# --- how an attempt ends -------------------------------------------------------------------------------------------


def end(world: World, index: int, how: End, retryable: bool, death: Death | None) -> None:
    attempt = pick(world.attempts, index)
    job, verb = held_job(world, attempt), VERBS[how]
    error = JobError(code="crashed", message="it crashed", category="system", retryable=retryable)
    outcome = world.act(lambda: _end(world, attempt, how, error), death)
    allowed = job is not None and job.state in TRANSITIONS[verb]
    if not judge(outcome, allowed=allowed) or job is None:
        return
    if how == "failed":
        if job.failure is None:
            job.events.append((job.attempt, "run_failed"))
        job.failure = "retryable" if retryable else "final"
    else:
        job.failure = None
    go(world, job, verb)
    if how == "suspend" and job.state == "paused":
        job.events.append((job.attempt, "warning_raised"))


def _end(world: World, attempt: Attempt, how: End, error: JobError) -> Any:
    job_id, number = attempt.claim.job.id, attempt.claim.attempt
    match how:
        case "give_back":
            return leases.give_back(world.store, job_id, number)
        case "suspend":
            return leases.suspend(world.store, job_id, number, AWAY)
        case "failed":
            return leases.finish(world.store, job_id, number, how, error)
        case _:
            return leases.finish(world.store, job_id, number, how)


def lost_ones(world: World, time: datetime) -> list[told.Job]:
    """Jobs whose lease is over."""
    held = (one for one in world.told.jobs.values() if one.is_held)
    return [one for one in held if one.lease_ends_at is not None and one.lease_ends_at < time]


def requeue_lost(world: World, max_attempts: int, death: Death | None) -> Outcome:
    lost = lost_ones(world, world.clock.time)
    outcome = world.act(lambda: leases.requeue_lost(world.store, max_attempts), death)
    for job in lost if outcome.happened else []:
        _lose(world, job, max_attempts)
    return outcome


def _lose(world: World, job: told.Job, max_attempts: int) -> None:
    job.num_lost += 1
    job.events.append((job.attempt, "warning_raised"))
    if TRANSITIONS["give_back"][job.state] != "queued":  # the stop that was asked for
        job.failure = None
        go(world, job, "give_back")
        return
    if job.failure is None and job.num_lost >= max_attempts:
        job.events.append((job.attempt, "run_failed"))
        job.failure = "retryable"
    go(world, job, "give_back" if job.failure is None else "fail")
