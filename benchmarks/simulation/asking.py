"""What users ask of what is queued or done: stops, actions and exports, each with what has to come of it."""

from typing import Any, Literal

from benchmarks.simulation import told
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.jobs_at_work import go
from benchmarks.simulation.world import LIMITS, World, judge, pick
from service.store import actions, exports, jobs, outputs, sweeps
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.jobs import PauseKeeps
from service.store.states import TRANSITIONS

Stop = Literal["cancel", "pause", "resume"]


def stop(world: World, index: int, verb: Stop, keeps: PauseKeeps, death: Death | None) -> None:
    job = pick(world.told.jobs.values(), index)
    allowed = job.state in TRANSITIONS[verb]
    target = TRANSITIONS[verb].get(job.state)
    if verb == "resume" and job.state == "failed":
        assert LIMITS.jobs is not None
        allowed = job.failure == "retryable" and len(world.told.unfinished()) < LIMITS.jobs
    if verb == "pause" and target == "pausing" and keeps == "last_checkpoint":
        allowed = job.latest is not None
    outcome = world.ask(f"{verb}Job", lambda: _asked(world, job.id, verb, keeps), death)
    if not judge(outcome, allowed=allowed):
        return
    if verb == "pause" and target == "pausing":
        job.discards = job.discards or keeps == "last_checkpoint"
    if target != job.state:
        job.failure = None
    go(world, job, verb)
    if verb == "resume":
        job.num_lost, job.discards, job.was_resumed = 0, False, True


def _asked(world: World, job_id: str, verb: Stop, keeps: PauseKeeps) -> Any:
    match verb:
        case "cancel":
            return jobs.request_cancel(world.store, PROJECT, job_id)
        case "pause":
            return jobs.request_pause(world.store, PROJECT, job_id, keeps)
        case "resume":
            return jobs.resume(world.store, PROJECT, job_id)


def cancel_sweep(world: World, index: int, death: Death | None) -> None:
    """A process that dies in it has cancelled some of the jobs; whoever asks again cancels the rest."""
    trials = pick(world.told.sweeps.values(), index)
    outcome = world.ask("cancelSweep", lambda: sweeps.request_cancel(world.store, PROJECT, trials.id), death)
    if outcome.commits:
        trials.is_cancelled = trials.is_cancelled or _is_cancelled(world, trials.id)
    live = [world.told.jobs[one] for one in trials.jobs.values() if one in world.told.jobs]
    for job in live:
        if not job.has_ended and (not outcome.died or _state(world, job.id) in ("cancelled", "cancelling")):
            job.failure = None if job.state != "cancelling" else job.failure
            go(world, job, "cancel")


def _is_cancelled(world: World, sweep_id: str) -> bool:
    record = sweeps.get(world.store, PROJECT, sweep_id)
    assert record is not None
    return record.is_cancelled


def _state(world: World, job_id: str) -> str:
    record = jobs.summary(world.store, PROJECT, job_id)
    assert record is not None
    return record.state


def act_on(world: World, index: int) -> None:
    job = pick([one for one in world.told.jobs.values() if one.id.startswith("job_")], index)
    outcome = world.ask("createAction", lambda: actions.ask(world.store, PROJECT, job.id, "probe"))
    if judge(outcome, allowed=not job.has_ended):
        job.actions[outcome.value.id] = False


def export(world: World, index: int, death: Death | None) -> None:
    checkpoint = pick(world.told.checkpoints.values(), index)
    record = outputs.get_checkpoint(world.store, PROJECT, checkpoint.id)
    assert record is not None
    there = next((one for one in world.told.exports.values() if one.checkpoint_id == checkpoint.id), None)
    outcome = world.ask("createExport", lambda: exports.ask(world.store, record, "peft", again=True), death)
    if not judge(outcome, allowed=True):
        return
    if there is None:
        found = exports.get(world.store, checkpoint.id, "peft")
        assert found is not None
        world.told.exports[found.id] = told.Export(found.id, checkpoint.id)
    elif there.state == "failed":
        there.state, there.num_lost = "queued", 0
