"""What users have queued: jobs, forks, evaluations, verifications and sweeps of trials, each with what has to come of it."""

from datetime import datetime
from typing import Literal

from benchmarks.simulation import rows, told
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.specs import job_spec, proof_spec
from benchmarks.simulation.world import LIMITS, World, judge, pick
from service.store import contests, jobs, proofs, sweeps
from service.store.ids import new_id
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT

Beginning = Literal["base", "resume", "warm_start"]
GONE = "ds_" + "0" * 26  # of what was never there


def submit(world: World, index: int, begins: Beginning, times: int, death: Death | None) -> None:
    """A job, perhaps from a checkpoint; sent again under the id that was set aside it is the same job."""
    dataset_id, prompt_set_id = some_data(world, index), some_prompts(world, index)
    parent = pick(world.told.checkpoints, index) if begins != "base" and world.told.checkpoints else None
    start = parent if begins == "warm_start" else None
    spec = job_spec(dataset_id, start_from=start, prompt_set_id=prompt_set_id)
    job_id = new_id("job")
    names = frozenset({dataset_id, prompt_set_id or "", start or ""} - {""})
    resumes = parent is not None and begins == "resume"
    for _ in range(times):
        allowed = (has_room(world) and are_there(world, names)) or job_id in world.told.jobs
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


def has_room(world: World) -> bool:
    assert LIMITS.jobs is not None
    assert LIMITS.submits is not None
    return len(world.told.unfinished()) < LIMITS.jobs and world.told.submits[hour_of(world)] < LIMITS.submits


def are_there(world: World, names: frozenset[str]) -> bool:
    return names <= {*world.told.datasets, *world.told.prompt_sets, *world.told.checkpoints}


def some_data(world: World, index: int) -> str:
    ready = [one.id for one in world.told.datasets.values() if one.state == "ready"]
    return pick(ready, index) if ready else GONE


def some_prompts(world: World, index: int) -> str | None:
    return pick([*world.told.prompt_sets, None], index)


def evaluate(world: World, index: int, death: Death | None) -> None:
    """Of a checkpoint, or of one that is gone."""
    found = [pick(world.told.checkpoints, index)] if world.told.checkpoints else ["ckpt_" + "0" * 26]
    prompt_set_id, evaluation_id = some_prompts(world, index), new_id("eval")
    names = frozenset({*found, prompt_set_id or ""} - {""})
    allowed = has_room(world) and are_there(world, names)
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
    if not are_there(world, evaluation.names):
        return
    record, allowed = jobs.get(world.store, PROJECT, evaluation.id), has_room(world)
    assert record is not None
    outcome = world.ask("verifyEvaluation", lambda: proofs.create_verification(world.store, record, 1))
    if judge(outcome, allowed=allowed):
        world.told.jobs[outcome.value.id] = told.Job(outcome.value.id, evaluation.names, parent=evaluation.id)
        count_submit(world)


def sweep(world: World, index: int, num: int, at_once: int, death: Death | None) -> None:
    """Trials on a data set, the last one on a checkpoint; then fed, as the request does that creates it."""
    dataset_id, parent = some_data(world, index), next(reversed(world.told.checkpoints), None)
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
    if judge(outcome, allowed=are_there(world, frozenset().union(*names))):
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
            assert row.number in trials.given_up or not are_there(world, names), "given up, and all of it is there"
            trials.given_up.add(row.number)
        elif row.job_id in there and row.job_id not in world.told.jobs:
            assert row.number not in trials.jobs, "a trial was queued twice"
            assert has_room(world), "a trial was queued beyond the quota"
            trials.jobs[row.number] = row.job_id
            world.told.jobs[row.job_id] = told.Job(row.job_id, trials.names[row.number])
            count_submit(world)
        elif row.job_id in there:
            trials.jobs[row.number] = row.job_id
