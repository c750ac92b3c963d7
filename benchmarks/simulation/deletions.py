"""What users delete: done where nothing needs it, and refused where something does."""

from collections.abc import Sequence
from typing import Literal, assert_never, get_args

from benchmarks.simulation import rows, told
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.world import World, judge, pick
from service.store import deletion, outputs
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT

Deletion = Literal["a job", "a checkpoint", "an upload", "an output", "a sweep"]
DELETIONS: tuple[Deletion, ...] = get_args(Deletion)


def delete(world: World, what: Deletion, index: int, *, even_result: bool, death: Death | None) -> bool:
    """Whether there is any such thing."""
    match what:
        case "a job" if jobs_ := [one for one in world.told.jobs.values() if one.id[:4] not in ("vfy_", "cand")]:
            _delete_job(world, pick(jobs_, index), death)
        case "a checkpoint" if world.told.checkpoints:
            _delete_checkpoint(
                world, pick(world.told.checkpoints.values(), index), even_result=even_result, death=death
            )
        case "an upload" if uploads := [*world.told.datasets, *world.told.prompt_sets]:
            _delete_upload(world, pick(uploads, index), death)
        case "an output" if outputs_ := _outputs(world):
            _delete_output(world, *pick(outputs_, index), death)
        case "a sweep" if world.told.sweeps:
            _delete_sweep(world, pick(world.told.sweeps.values(), index), death)
        case "a job" | "a checkpoint" | "an upload" | "an output" | "a sweep":
            return False
        case _:
            assert_never(what)
    return True


def _delete_job(world: World, job: told.Job, death: Death | None) -> None:
    """A job, or an evaluation with its verifications."""
    own = [job, *(one for one in world.told.jobs.values() if one.parent == job.id)]
    checkpoints = world.told.of_job(job.id)
    is_needed = any(one.is_pinned or _is_needed(world, one.id) for one in checkpoints)
    call = deletion.delete_job if job.id.startswith("job_") else deletion.delete_evaluation
    outcome = world.ask("deleteJob", lambda: call(world.store, PROJECT, job.id), death)
    if judge(outcome, allowed=all(one.has_ended for one in own) and not is_needed):
        for one in own:
            world.told.drop_job(one.id)


def _is_needed(world: World, checkpoint_id: str) -> bool:
    record = world.told
    return bool(record.names_of(checkpoint_id) or record.users_of(checkpoint_id) or record.is_awaited(checkpoint_id))


def _delete_checkpoint(world: World, checkpoint: told.Checkpoint, *, even_result: bool, death: Death | None) -> None:
    job = world.told.jobs[checkpoint.job_id]
    is_result = checkpoint.id in (job.result, job.latest if job.result is None else None)
    is_kept = checkpoint.is_pinned or _is_needed(world, checkpoint.id) or not job.has_ended
    call = lambda: deletion.delete_checkpoint(world.store, PROJECT, checkpoint.id, even_result=even_result)  # noqa: E731
    outcome = world.ask("deleteCheckpoint", call, death)
    if judge(outcome, allowed=not is_kept and (even_result or not is_result)):
        world.told.drop_checkpoint(checkpoint.id)


def _delete_upload(world: World, found: str, death: Death | None) -> None:
    """A data set, weights or a prompt set."""
    is_arriving = found in world.told.datasets and world.told.datasets[found].state == "uploading"
    call = deletion.delete_dataset if found in world.told.datasets else deletion.delete_prompt_set
    outcome = world.ask("deleteUpload", lambda: call(world.store, PROJECT, found), death)
    is_needed = world.told.users_of(found) or world.told.is_awaited(found)
    if judge(outcome, allowed=not is_arriving and not is_needed):
        world.told.datasets.pop(found, None)
        world.told.prompt_sets.pop(found, None)


def _delete_sweep(world: World, trials: told.Trials, death: Death | None) -> None:
    """One that has nothing left to queue, which whoever feeds it finds out, and whose jobs have ended; they stay."""
    is_open = next(row.is_open for row in rows.read(world.store)["sweeps"] if row.id == trials.id)
    assert is_open or not trials.waiting(), "it was closed before all of it was queued"
    has_ended = all(world.told.jobs[one].has_ended for one in trials.jobs.values() if one in world.told.jobs)
    outcome = world.ask("deleteSweep", lambda: deletion.delete_sweep(world.store, PROJECT, trials.id), death)
    if judge(outcome, allowed=not is_open and has_ended):
        del world.told.sweeps[trials.id]


def _outputs(world: World) -> Sequence[tuple[str, str, int]]:
    """Pictures, reports and exports: their kind, whose they are, and of which step."""
    return [
        *(("sample", one.id, step) for one in world.told.jobs.values() for step in one.samples),
        *(("report", one.id, 0) for one in world.told.jobs.values() if one.pages),
        *(("export", one.id, 0) for one in world.told.exports.values()),
    ]


def _delete_output(world: World, kind: str, owner: str, step: int, death: Death | None) -> None:
    match kind:
        case "sample":
            _delete_sample(world, world.told.jobs[owner], step, death)
        case "report":
            job = world.told.jobs[owner]
            call = lambda: deletion.delete_report(world.store, PROJECT, job.id)  # noqa: E731
            if judge(world.ask("deleteReport", call, death), allowed=job.has_ended):
                job.pages.clear()
        case _:
            found = world.told.exports[owner]
            call = lambda: deletion.delete_export(world.store, found.checkpoint_id, "peft")  # noqa: E731
            if judge(world.ask("deleteExport", call, death), allowed=found.state != "running"):
                del world.told.exports[owner]


def _delete_sample(world: World, job: told.Job, step: int, death: Death | None) -> None:
    sample = next(one for one in outputs.list_samples(world.store, PROJECT, job.id) if one.step == step)
    call = lambda: deletion.delete_sample(world.store, PROJECT, job.id, sample.id)  # noqa: E731
    if judge(world.ask("deleteSample", call, death), allowed=True):
        del job.samples[step]
