"""What the service does by itself: sweeps for what was lost, trials, policies, removals, orphans; and time that passes."""

import re
from collections.abc import Callable
from datetime import datetime, timedelta

from benchmarks.simulation import exports_at_work, hooks, rows, told, uploads
from benchmarks.simulation.fragile import Death
from benchmarks.simulation.jobs_at_work import requeue_lost
from benchmarks.simulation.submits import adopt
from benchmarks.simulation.world import MAX_ATTEMPTS, World
from service.store import orphans, removals, retention, sweeps
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.retention_rules import Policy

GRACE = timedelta(hours=24)
OF_ATTEMPT = re.compile(r"projects/[^/]+/jobs/([^/]+)/.*attempt-(\d+)[./]")
OF_EXPORT = re.compile(r"projects/[^/]+/jobs/[^/]+/exports/[^/]+/([^/]+)/")


def sweep(world: World, death: Death | None) -> None:
    """As every worker does every few seconds."""
    requeue_lost(world, MAX_ATTEMPTS, death)
    uploads.sweep(world, MAX_ATTEMPTS, death)
    exports_at_work.sweep(world, MAX_ATTEMPTS, death)


def feed(world: World, death: Death | None) -> None:
    world.act(lambda: sweeps.feed_all(world.store, world.rung.append), death)
    adopt(world)


def let_go(world: World, death: Death | None) -> None:
    """Retention. What it takes is its own to choose, among what nobody needs; what it must keep, the record says."""
    before, time = list(world.told.checkpoints.values()), world.clock.time
    world.act(lambda: retention.sweep(world.store), death)
    there = {row.id for row in rows.read(world.store)["checkpoints"]}
    gone = [one for one in before if one.id not in there]
    for one in gone:
        _may_go(world.told, one, time)
    for one in gone:
        world.told.drop_checkpoint(one.id)


def _may_go(record: told.Told, one: told.Checkpoint, time: datetime) -> None:
    """That nobody needed it, and that a policy let it go."""
    job = record.jobs[one.job_id]
    assert job.has_ended, f"its job is {job.state} and may go on from it"
    assert not one.is_pinned, "it was pinned"
    assert not record.names_of(one.id), "an alias points at it"
    assert not record.users_of(one.id), "a job that has not ended needs it"
    assert not record.is_awaited(one.id), "a trial that is yet to be queued needs it"
    assert one.id not in {child.parent for child in record.jobs.values()}, "a fork stands on it"
    policy = record.policies.get(job.id) or record.policies.get(PROJECT) or Policy()
    if job.state != "succeeded" and job.ended_at is not None and _is_past(job.ended_at, policy.unfinished_days, time):
        return
    assert not job.may_go_on, f"its job is {job.state} and may be resumed"
    if not _is_past(one.time, policy.ttl_days, time):
        assert policy.keep_last is not None, "no policy let it go"
        assert one not in record.of_job(job.id)[-policy.keep_last :], "it is among the last"
        assert one.id != (job.result or job.latest), "it is the result"
        assert not one.is_best, "it is the best"


def _is_past(since: datetime, days: float | None, time: datetime) -> bool:
    return days is not None and time + timedelta(seconds=1) - since > timedelta(days=days)


def remove(world: World, death: Death | None) -> None:
    world.act(lambda: removals.remove_due(world.store, world.objects), death)


def remove_orphans(world: World, death: Death | None) -> None:
    """Once it has come to its end, what is older than the grace time has a row, or somebody who may still give it one."""
    outcome = world.act(lambda: orphans.remove(world.store, world.objects, GRACE), death)
    if outcome.died:
        return
    named, time = rows.read(world.store).named_keys(), world.clock.time
    for key in world.objects.all_keys() - named:
        is_young = time - world.objects.head(key).modified_at <= GRACE + timedelta(seconds=1)
        assert is_young or _is_on_its_way(world.told, key), f"{key} is nobody's, and stays"


def _is_on_its_way(record: told.Told, key: str) -> bool:
    if (found := OF_EXPORT.match(key)) is not None:
        export = record.exports.get(found[1])
        return export is not None and export.state in ("queued", "running")
    if (found := OF_ATTEMPT.match(key)) is not None:
        job = record.jobs.get(found[1])
        return job is not None and job.is_held and job.attempt == int(found[2])
    return key.split("/")[3] in record.datasets


CHORES: dict[str, Callable[[World, Death | None], None]] = {
    "sweep of what was lost": sweep,
    "feed sweeps": feed,
    "retention": let_go,
    "removals": remove,
    "orphans": remove_orphans,
    "old deliveries": hooks.forget_old,
}
