"""What workers do with exports. Any attempt may do so at any time, the lost ones too."""

from datetime import timedelta
from typing import Literal

from benchmarks.simulation.fragile import Death
from benchmarks.simulation.world import LEASE_SECONDS, Hold, World, judge, pick
from service.store import exports, keys
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.base import JobError, StoredFile

CRASHED = JobError(code="export_crashed", message="it crashed", category="system", retryable=True)

Making = Literal["renew", "finish", "fail", "give_back"]


def claim(world: World, index: int, death: Death | None) -> None:
    export, time = pick(world.told.exports.values(), index), world.clock.time
    outcome = world.act(lambda: exports.claim(world.store, export.id, "a maker", LEASE_SECONDS), death)
    assert outcome.died or (outcome.value is not None) == (export.state == "queued")
    if outcome.happened and export.state == "queued":
        export.state, export.attempt = "running", export.attempt + 1
        export.lease_ends_at = time + timedelta(seconds=LEASE_SECONDS)
        checkpoint = world.told.checkpoints[export.checkpoint_id]
        prefix = keys.export_prefix(PROJECT, checkpoint.job_id, checkpoint.id, export.id)
        world.makers.append(Hold(export.id, export.attempt, prefix))


def make(world: World, index: int, what: Making, death: Death | None) -> None:
    hold = pick(world.makers, index)
    export = world.told.exports.get(hold.id)
    holds = export is not None and export.state == "running" and export.attempt == hold.attempt
    if what == "renew":
        time = world.clock.time
        assert exports.renew(world.store, hold.id, hold.attempt, LEASE_SECONDS) == holds
        if holds and export is not None:
            export.lease_ends_at = time + timedelta(seconds=LEASE_SECONDS)
        return
    key = f"{hold.prefix}attempt-{hold.attempt}/weights.safetensors"
    outcome = world.act(lambda: _made(world, hold, what, key), death)
    if judge(outcome, allowed=holds) and export is not None:
        export.lease_ends_at = None
        match what:
            case "finish":
                export.state, export.keys = "ready", frozenset({key})
            case "fail":
                export.state = "failed"
            case _:
                export.state = "queued"


def _made(world: World, hold: Hold, what: Making, key: str) -> object:
    match what:
        case "finish":
            world.objects.put_bytes(key, b"exported")
            file = StoredFile(path="weights.safetensors", size_bytes=8, sha256="0" * 64, object_key=key)
            return exports.finish(world.store, hold.id, hold.attempt, [file])
        case "fail":
            return exports.fail(world.store, hold.id, hold.attempt, CRASHED)
        case _:
            return exports.give_back(world.store, hold.id, hold.attempt)


def sweep(world: World, max_attempts: int, death: Death | None) -> None:
    time = world.clock.time
    outcome = world.act(lambda: exports.sweep(world.store, max_attempts), death)
    for one in world.told.exports.values() if outcome.happened else []:
        if one.state == "running" and one.lease_ends_at is not None and one.lease_ends_at < time:
            one.num_lost, one.lease_ends_at = one.num_lost + 1, None
            one.state = "failed" if one.num_lost >= max_attempts else "queued"
