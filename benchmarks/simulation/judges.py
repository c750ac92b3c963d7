"""Candidates, and people who judge them: what is judged is kept while a labeling shows it, and no vote is lost or counted twice."""

from benchmarks.simulation import told
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.specs import candidates_spec
from benchmarks.simulation.submits import are_there, count_submit, has_room, some_prompts
from benchmarks.simulation.world import World, judge, pick
from service.store import contests, deletion, labelings
from service.store.ids import new_id
from service.store.labelings import Choice
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT


def ask_for(world: World, index: int, times: int, death: Death | None) -> None:
    """Of a checkpoint, or of one that is gone; sent again under the id that was set aside they are the same candidates."""
    found = pick(world.told.checkpoints, index) if world.told.checkpoints else "ckpt_" + "0" * 26
    prompt_set_id, candidates_id = some_prompts(world, index), new_id("cand")
    names = frozenset({found, prompt_set_id or ""} - {""})
    spec = candidates_spec(found, prompt_set_id)
    for _ in range(times):
        allowed = (has_room(world) and are_there(world, names)) or candidates_id in world.told.jobs
        call = lambda: contests.create(world.store, project_id=PROJECT, spec=spec, contest_id=candidates_id)  # noqa: E731
        if judge(world.ask("createCandidates", call, death), allowed=allowed) and candidates_id not in world.told.jobs:
            world.told.jobs[candidates_id] = told.Job(candidates_id, names)
            count_submit(world)


def delete_candidates(world: World, index: int, death: Death | None) -> None:
    """Not while a labeling shows their images."""
    asked = pick([one for one in world.told.jobs.values() if one.id.startswith("cand_")], index)
    is_shown = any(one.candidates_id == asked.id for one in world.told.labelings.values())
    call = lambda: deletion.delete_candidates(world.store, PROJECT, asked.id)  # noqa: E731
    if judge(world.ask("deleteCandidates", call, death), allowed=asked.has_ended and not is_shown):
        world.told.drop_job(asked.id)


# --- labelings -----------------------------------------------------------------------------------------------------


def label(world: World, index: int, times: int, death: Death | None) -> None:
    """All pairs of what there is, once it will not grow any more, and half of them again; two images make the first pair."""
    asked = pick([one for one in world.told.jobs.values() if one.id.startswith("cand_")], index)
    labeling_id = new_id("lab")
    for _ in range(times):
        call = lambda: labelings.create(  # noqa: E731
            world.store,
            project_id=PROJECT,
            candidates_id=asked.id,
            num_pairs=9,
            repeated=0.5,
            seed=index,
            labeling_id=labeling_id,
        )
        if judge(world.ask("createLabeling", call, death), allowed=asked.has_ended and len(asked.images) > 1):
            world.told.labelings.setdefault(labeling_id, told.Labeling(labeling_id, asked.id))
    if labeling_id in world.told.labelings:
        record = labelings.get(world.store, PROJECT, labeling_id)
        assert record is not None
        world.ballots.append(record)


def vote(world: World, index: int, annotator: str, choice: Choice | None, times: int, death: Death | None) -> None:
    """Or with no choice the undoing of a vote. Sent twice, either is what it was sent once; a labeling that is gone takes none."""
    record = pick(world.ballots, index)
    labeling, number = world.told.labelings.get(record.id), index % record.num_questions

    def say() -> None:
        if choice is None:
            labelings.take_back(world.store, record.id, annotator, number)
        else:
            labelings.vote(world.store, record, annotator, number, choice)

    for _ in range(times):
        allowed = labeling is not None or choice is None
        if judge(world.ask("putVote", say, death), allowed=allowed) and labeling is not None:
            if choice is None:
                labeling.votes.pop((annotator, number), None)
            else:
                labeling.votes[annotator, number] = choice


def delete(world: World, index: int, death: Death | None) -> None:
    """A labeling goes with its votes; what it showed and what was made of it stays."""
    labeling = pick(world.told.labelings.values(), index)
    outcome = world.ask("deleteLabeling", lambda: labelings.delete(world.store, PROJECT, labeling.id), death)
    if judge(outcome, allowed=True):
        del world.told.labelings[labeling.id]
