"""What users have kept: pins, names and retention policies."""

from benchmarks.simulation.fragile import Death
from benchmarks.simulation.world import World, judge, pick
from service.store import aliases, retention
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.retention_rules import Policy


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
        world.told.point(alias, checkpoint.id)


def retire(world: World, index: int) -> None:
    alias = pick(world.told.aliases, index)
    if judge(world.ask("deleteAlias", lambda: aliases.retire(world.store, PROJECT, alias)), allowed=True):
        world.told.point(alias, None)


def set_policy(world: World, index: int, policy: Policy) -> None:
    owner = pick([PROJECT, *world.told.jobs], index)
    if owner == PROJECT:
        outcome = world.ask("putRetention", lambda: retention.set_project_policy(world.store, PROJECT, policy))
    else:
        outcome = world.ask("putRetention", lambda: retention.set_job_policy(world.store, PROJECT, owner, policy))
    if judge(outcome, allowed=True):
        world.told.policies[owner] = policy
