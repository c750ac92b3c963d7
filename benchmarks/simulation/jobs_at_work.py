"""What workers do with jobs: claim, renew, tell what the run says, leave. Any attempt may do so at any time, the lost ones too."""

import hashlib
import json
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from alignment_core.events import (
    ActionAnswered,
    CheckpointSaved,
    EvaluationCompleted,
    Event,
    ImagesScored,
    PhaseChanged,
    ProofCompleted,
    ProofStarted,
    RunCompleted,
    RunFailed,
    RunStarted,
    SamplesDrawn,
    StepCompleted,
)
from benchmarks.simulation import told
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.world import LEASE_SECONDS, Attempt, Outcome, World, judge, pick
from service.api.schemas.runs import REPORT_EXAMPLE
from service.store import keys, leases
from service.store.models import Checkpoint
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.quotas import by_month
from service.store.records import JobError
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


# --- what the run says ---------------------------------------------------------------------------------------------


def tell(world: World, attempt: Attempt, event: Event, death: Death | None) -> told.Job | None:
    """Have the worker record an event; the job, where it was recorded."""
    job = held_job(world, attempt)
    outcome = world.act(lambda: record(world.parts, attempt.claim, attempt.workdir, [event]), death)
    if not judge(outcome, allowed=job is not None) or job is None:
        return None
    job.events.append((job.attempt, event.type))
    return job


def is_proof(attempt: Attempt) -> bool:
    return not attempt.claim.job.id.startswith("job_")


def start(world: World, index: int, death: Death | None) -> None:
    attempt = pick(world.attempts, index)
    time = world.clock.time
    shared: dict[str, Any] = {
        "spec_sha256": "0" * 64,
        "device": "cpu",
        "precision": "fp32",
        "versions": {},
        "time": time,
    }
    run = RunStarted(learning_rate=1e-5, examples_per_step=1, total_steps=9, resumed_from_step=attempt.step, **shared)
    proof = ProofStarted(num_images=8, num_there=0, card="cpu", **shared)
    job = tell(world, attempt, proof if is_proof(attempt) else run, death)
    if job is not None and job.state == "starting":
        go(world, job, "begin")


def train(world: World, index: int, num: int, *, ends: bool) -> None:
    """Start if need be, some steps, a checkpoint, and with `ends` the report and the end."""
    start(world, index, None)
    for _ in range(num):
        step(world, index, None)
    save(world, index, False, ends, None)
    if ends:
        report(world, index, None)
        complete(world, index, None)
        end(world, index, "succeeded", False, None)


def change_phase(world: World, index: int, skew_seconds: float) -> None:
    """The training process's clock may be off, or be set back by whoever keeps the machine's."""
    time = world.clock.time + timedelta(seconds=skew_seconds)
    tell(world, pick(world.attempts, index), PhaseChanged(phase="training", time=time), None)


def step(world: World, index: int, death: Death | None) -> None:
    attempt = pick(world.attempts, index)
    attempt.step += 1
    loss = attempt.claim.attempt + attempt.step / 1000  # by which attempt a figure is
    event = StepCompleted(
        step=attempt.step, total_steps=9, metrics={"loss": loss}, step_seconds=0.1, time=world.clock.time
    )
    if (job := tell(world, attempt, event, death)) is not None:
        job.metrics[attempt.step] = loss


def save(world: World, index: int, is_best: bool, is_final: bool, death: Death | None) -> None:
    """A checkpoint: its files go up, then its manifest, then its row. A worker may die between any two of them."""
    attempt = pick(world.attempts, index)
    folder = attempt.workdir / "checkpoints" / str(attempt.step)
    content = f"{attempt.claim.job.id} {attempt.claim.attempt} {attempt.step}".encode()
    world.new_file(folder, "weights.safetensors", content)
    file = {"path": "weights.safetensors", "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    world.new_file(folder, "manifest.json", json.dumps({"files": [file]}).encode())
    event = CheckpointSaved(
        step=attempt.step,
        path=f"checkpoints/{attempt.step}",
        kind="lora",
        is_final=is_final,
        is_best=is_best,
        result_step=attempt.step if is_final else None,
        size_bytes=len(content),
        time=world.clock.time,
    )
    if (job := tell(world, attempt, event, death)) is not None:
        _keep(world, job, event)


def _keep(world: World, job: told.Job, event: CheckpointSaved) -> None:
    prefix = keys.checkpoint_prefix(PROJECT, job.id, event.step, job.attempt)
    there = [one for one in world.told.of_job(job.id) if one.step == event.step]
    if event.is_best:
        for one in world.told.of_job(job.id):
            one.is_best = False
    checkpoint = told.Checkpoint(
        id=there[0].id if there else _new_id(world, job.id, event.step),
        job_id=job.id,
        step=event.step,
        attempt=job.attempt,
        keys=frozenset({f"{prefix}weights.safetensors", f"{prefix}manifest.json"}),
        time=event.time,
        is_pinned=bool(there) and there[0].is_pinned,
        is_best=event.is_best,
    )
    for one in [one.id for one in world.told.exports.values() if one.checkpoint_id == checkpoint.id]:
        del world.told.exports[one]  # they were made of the files before
    world.told.checkpoints[checkpoint.id] = checkpoint
    job.latest = checkpoint.id
    job.result = checkpoint.id if event.result_step is not None else job.result


def _new_id(world: World, job_id: str, step_: int) -> str:
    query = sa.select(Checkpoint.id).where(Checkpoint.job_id == job_id, Checkpoint.step == step_)
    with world.store.read() as session:
        found = session.scalars(query).one_or_none()
    assert found is not None, "a checkpoint that was acknowledged is not there"
    return found


def draw(world: World, index: int, death: Death | None) -> None:
    """A picture; of an evaluation some images with their scores."""
    attempt = pick(world.attempts, index)
    world.num_files += 1
    name = world.new_file(attempt.workdir, "drawn.png", f"picture {world.num_files}".encode())
    if is_proof(attempt):
        scored = ImagesScored(contender="base", path=name, done=1, total=8, time=world.clock.time)
        if (job := tell(world, attempt, scored, death)) is not None:
            job.shards[name] = keys.proof_file_key(PROJECT, job.id, name, job.attempt)
    else:
        drawn = SamplesDrawn(step=attempt.step, path=name, prompts=["a"], time=world.clock.time)
        if (job := tell(world, attempt, drawn, death)) is not None:
            job.samples[attempt.step] = keys.sample_key(PROJECT, job.id, attempt.step, job.attempt)


def report(world: World, index: int, death: Death | None) -> None:
    attempt = pick(world.attempts, index)
    name = world.new_file(attempt.workdir, "page.html", b"<p>better</p>")
    if is_proof(attempt):
        told_ = ProofCompleted(path="report.json", scores=name, report={"is": "a report"}, time=world.clock.time)
        if (job := tell(world, attempt, told_, death)) is not None:
            job.shards["scores"] = keys.proof_file_key(PROJECT, job.id, name, job.attempt)
    else:
        found = {**REPORT_EXAMPLE, "step": attempt.step}
        event = EvaluationCompleted(
            step=attempt.step, path="report.json", page=name, report=found, time=world.clock.time
        )
        if (job := tell(world, attempt, event, death)) is not None:
            job.pages[attempt.step] = keys.report_page_key(PROJECT, job.id, attempt.step, job.attempt)


def answer(world: World, index: int, death: Death | None) -> None:
    """Of what was asked of any job: an answer to what was asked of another is nobody's."""
    attempt = pick(world.attempts, index)
    asked = [(job, name) for job in world.told.jobs.values() for name in job.actions]
    asker, name = pick(asked, index)
    event = ActionAnswered(id=name, action="probe", step=attempt.step, time=world.clock.time)
    if (job := tell(world, attempt, event, death)) is not None and job is asker:
        job.actions[name] = True


def complete(world: World, index: int, death: Death | None) -> None:
    attempt = pick(world.attempts, index)
    job = tell(world, attempt, RunCompleted(step=attempt.step, time=world.clock.time), death)
    if job is not None and job.state == "running":
        go(world, job, "finalize")


def fail(world: World, index: int, retryable: bool, death: Death | None) -> None:
    event = RunFailed(
        code="crashed", message="it crashed", category="system", retryable=retryable, time=world.clock.time
    )
    if (job := tell(world, pick(world.attempts, index), event, death)) is not None:
        job.failure = "retryable" if retryable else "final"


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
