"""What users ask for: jobs, forks, evaluations, sweeps, stops, names, policies and deletions, each with what has to come of it."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, assert_never, get_args

from benchmarks.simulation import rows, told
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.jobs_at_work import go
from benchmarks.simulation.specs import job_spec, proof_spec
from benchmarks.simulation.world import LIMITS, World, judge, pick
from service.store import actions, aliases, contests, deletion, exports, jobs, outputs, proofs, retention, sweeps
from service.store.ids import new_id
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records import PauseKeeps
from service.store.retention_rules import Policy
from service.store.states import TRANSITIONS

Beginning = Literal["base", "resume", "warm_start"]
Stop = Literal["cancel", "pause", "resume"]
Deletion = Literal["a job", "a checkpoint", "an upload", "an output", "a sweep"]
DELETIONS: tuple[Deletion, ...] = get_args(Deletion)
GONE = ("ds_" + "0" * 26, "ps_" + "0" * 26)  # ids of what was never there


# --- what is queued ------------------------------------------------------------------------------------------------


def submit(world: World, index: int, begins: Beginning, times: int, death: Death | None) -> None:
    """A job, perhaps from a checkpoint; sent again under the id that was set aside it is the same job."""
    dataset_id, prompt_set_id = _data(world, index), _prompts(world, index)
    parent = pick(world.told.checkpoints, index) if begins != "base" and world.told.checkpoints else None
    start = parent if begins == "warm_start" else None
    spec = job_spec(dataset_id, start_from=start, prompt_set_id=prompt_set_id)
    job_id = new_id("job")
    names = frozenset({dataset_id, prompt_set_id or "", start or ""} - {""})
    resumes = parent is not None and begins == "resume"
    for _ in range(times):
        allowed = (_has_room(world) and _are_there(world, names)) or job_id in world.told.jobs
        outcome = world.ask(
            "createJob",
            lambda: jobs.create(
                world.store,
                project_id=PROJECT,
                spec=spec,
                job_id=job_id,
                needs=[dataset_id],
                needs_prompts=[prompt_set_id] if prompt_set_id else [],
                resume_from_checkpoint_id=parent if resumes else None,
            ),
            death,
        )
        if judge(outcome, allowed=allowed) and job_id not in world.told.jobs:
            world.told.jobs[job_id] = told.Job(job_id, names, parent=parent, resumes=resumes)
            count_submit(world)


def count_submit(world: World) -> None:
    world.told.submits[hour_of(world)] += 1


def hour_of(world: World) -> datetime:
    return world.clock.time.replace(minute=0, second=0, microsecond=0)


def _has_room(world: World) -> bool:
    assert LIMITS.jobs is not None
    assert LIMITS.submits is not None
    return len(world.told.unfinished()) < LIMITS.jobs and world.told.submits[hour_of(world)] < LIMITS.submits


def _are_there(world: World, names: frozenset[str]) -> bool:
    return names <= {*world.told.datasets, *world.told.prompt_sets, *world.told.checkpoints}


def _data(world: World, index: int) -> str:
    ready = [one.id for one in world.told.datasets.values() if one.state == "ready"]
    return pick(ready, index) if ready else GONE[0]


def _prompts(world: World, index: int) -> str | None:
    return pick([*world.told.prompt_sets, None], index)


def evaluate(world: World, index: int, death: Death | None) -> None:
    """Of a checkpoint, or of one that is gone."""
    found = [pick(world.told.checkpoints, index)] if world.told.checkpoints else ["ckpt_" + "0" * 26]
    prompt_set_id, evaluation_id = _prompts(world, index), new_id("eval")
    names = frozenset({*found, prompt_set_id or ""} - {""})
    allowed = _has_room(world) and _are_there(world, names)
    outcome = world.ask(
        "createEvaluation",
        lambda: contests.create(
            world.store,
            project_id=PROJECT,
            spec=proof_spec(found, prompt_set_id),
            contest_id=evaluation_id,
        ),
        death,
    )
    if judge(outcome, allowed=allowed):
        world.told.jobs[evaluation_id] = told.Job(evaluation_id, names)
        count_submit(world)


def verify(world: World, index: int) -> None:
    """Of an evaluation that has ended well and whose checkpoints are there, which the API looks at first."""
    evaluations = [one for one in world.told.jobs.values() if one.id.startswith("eval_") and one.state == "succeeded"]
    evaluation = pick(evaluations, index)
    if not _are_there(world, evaluation.names):
        return
    record, allowed = jobs.get(world.store, PROJECT, evaluation.id), _has_room(world)
    assert record is not None
    outcome = world.ask("verifyEvaluation", lambda: proofs.create_verification(world.store, record, 1))
    if judge(outcome, allowed=allowed):
        world.told.jobs[outcome.value.id] = told.Job(outcome.value.id, evaluation.names, parent=evaluation.id)
        count_submit(world)


def sweep(world: World, index: int, num: int, at_once: int, death: Death | None) -> None:
    """Trials on a data set, the last one on a checkpoint; then fed, as the request does that creates it."""
    dataset_id, parent = _data(world, index), next(reversed(world.told.checkpoints), None)
    starts = [None] * (num - 1) + [parent]
    specs = [job_spec(dataset_id, start_from=one) for one in starts]
    names = [frozenset({dataset_id, one or ""} - {""}) for one in starts]
    trial = {"estimate": None, "card_gib": None, "name": None, "metadata": {}, "needs": [dataset_id]}
    trials = [({}, {**trial, "spec": spec.model_dump(mode="json"), "needs_prompts": []}) for spec in specs]
    sweep_id = new_id("swp")
    outcome = world.ask(
        "createSweep",
        lambda: sweeps.create(
            world.store, project_id=PROJECT, trials=trials, search={}, at_once=at_once, sweep_id=sweep_id
        ),
    )
    if judge(outcome, allowed=True):
        world.told.sweeps[sweep_id] = told.Trials(sweep_id, at_once, names)
        world.act(lambda: sweeps.feed(world.store, sweep_id, world.rung.append), death)
        adopt(world)


def adopt(world: World) -> None:
    """Jobs of trials that were queued just now. Which of several processes did it, and how far it came, is nobody's to say."""
    found = rows.read(world.store)
    there = {row.id for row in found["jobs"]}
    for row in found["trials"]:
        trials = world.told.sweeps[row.sweep_id]
        if row.error is not None:
            names = trials.names[row.number]
            assert row.number in trials.given_up or not _are_there(world, names), "given up, and all of it is there"
            trials.given_up.add(row.number)
        elif row.job_id in there and row.job_id not in world.told.jobs:
            assert row.number not in trials.jobs, "a trial was queued twice"
            assert _has_room(world), "a trial was queued beyond the quota"
            trials.jobs[row.number] = row.job_id
            world.told.jobs[row.job_id] = told.Job(row.job_id, trials.names[row.number])
            count_submit(world)
        elif row.job_id in there:
            trials.jobs[row.number] = row.job_id


# --- what is asked of it -------------------------------------------------------------------------------------------


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


# --- what is kept --------------------------------------------------------------------------------------------------


def pin(world: World, index: int, *, is_pinned: bool) -> None:
    checkpoint = pick(world.told.checkpoints.values(), index)
    call = lambda: retention.pin(world.store, PROJECT, checkpoint.id, is_pinned=is_pinned)  # noqa: E731
    if judge(world.ask("pinCheckpoint", call), allowed=True):
        checkpoint.is_pinned = is_pinned


def promote(world: World, index: int, alias: str, *, force: bool, death: Death | None) -> None:
    """The champion is earned by the report on that very checkpoint, or forced; a candidate needs none."""
    checkpoint = pick(world.told.checkpoints.values(), index)
    is_proven = checkpoint.step in world.told.jobs[checkpoint.job_id].pages
    call = lambda: aliases.promote(  # noqa: E731
        world.store, project_id=PROJECT, alias=alias, checkpoint_id=checkpoint.id, force=force, reason="because"
    )
    outcome = world.ask("promoteCheckpoint", call, death)
    if judge(outcome, allowed=is_proven or force or alias == aliases.CANDIDATE):
        world.told.aliases[alias] = checkpoint.id


def retire(world: World, index: int) -> None:
    alias = pick(world.told.aliases, index)
    if judge(world.ask("deleteAlias", lambda: aliases.retire(world.store, PROJECT, alias)), allowed=True):
        del world.told.aliases[alias]


def set_policy(world: World, index: int, policy: Policy) -> None:
    owner = pick([PROJECT, *world.told.jobs], index)
    if owner == PROJECT:
        outcome = world.ask("putRetention", lambda: retention.set_project_policy(world.store, PROJECT, policy))
    else:
        outcome = world.ask("putRetention", lambda: retention.set_job_policy(world.store, PROJECT, owner, policy))
    if judge(outcome, allowed=True):
        world.told.policies[owner] = policy


# --- what is deleted -----------------------------------------------------------------------------------------------


def delete(world: World, what: Deletion, index: int, *, even_result: bool, death: Death | None) -> bool:
    """Whether there is any such thing."""
    match what:
        case "a job" if jobs_ := [one for one in world.told.jobs.values() if not one.id.startswith("vfy_")]:
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
        world.told.prompt_sets.discard(found)


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
