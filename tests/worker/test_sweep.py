"""The sweep re-queues what was lost and rings for it."""

import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from service.store import idempotency, leases
from service.store.deletion import delete_dataset
from service.store.models import IdempotencyKey
from service.store.projects import DEFAULT_PROJECT_ID
from tests.worker.conftest import World
from tests.worker.test_dataset import get, upload
from worker.inputs import fetch_dataset
from worker.sweep import (
    KEEP_IDEMPOTENCY_KEYS_SECONDS,
    RING_AT_ONCE,
    Cleaning,
    remove_deleted,
    remove_leftovers,
    start_sweeping,
    sweep,
)


def test_a_job_whose_lease_ended_is_queued_again_and_rung_for(world: World) -> None:
    job = world.queue()
    assert leases.claim(world.store, job.id, "lost", lease_seconds=0.05)
    time.sleep(0.1)
    sweep(world.worker())
    assert world.get(job).state == "queued"
    assert world.rung == [job.id]


def test_a_job_whose_worker_was_lost_too_often_fails(world: World) -> None:
    job, parts = world.queue(), world.worker()
    for _ in range(parts.settings.max_attempts):
        assert leases.claim(world.store, job.id, "lost", lease_seconds=0.01)
        time.sleep(0.03)
        sweep(parts)
    failed = world.get(job)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error.code == "attempts_exhausted"


def test_a_sweep_rings_for_the_first_of_those_that_wait(world: World) -> None:
    queued = [world.queue() for _ in range(RING_AT_ONCE + 2)]
    sweep(world.worker())
    assert world.rung == [job.id for job in queued[:RING_AT_ONCE]]


def test_a_live_lease_is_left_alone(world: World) -> None:
    job = world.queue()
    assert leases.claim(world.store, job.id, "alive", lease_seconds=60)
    sweep(world.worker())
    assert world.get(job).state == "starting"
    assert world.rung == []


def test_old_idempotency_keys_are_forgotten(world: World) -> None:
    idempotency.begin(world.store, DEFAULT_PROJECT_ID, "old", "0" * 64, "job")
    idempotency.begin(world.store, DEFAULT_PROJECT_ID, "young", "0" * 64, "job")
    long_ago = datetime.now(UTC) - timedelta(seconds=KEEP_IDEMPOTENCY_KEYS_SECONDS + 60)
    with world.store.write() as session:
        session.get_one(IdempotencyKey, (DEFAULT_PROJECT_ID, "old")).created_at = long_ago
    sweep(world.worker())
    assert isinstance(idempotency.begin(world.store, DEFAULT_PROJECT_ID, "old", "1" * 64, "job"), idempotency.Fresh)
    with pytest.raises(idempotency.InFlight):
        idempotency.begin(world.store, DEFAULT_PROJECT_ID, "young", "0" * 64, "job")


def test_a_sweep_that_breaks_is_not_the_last_one(world: World) -> None:
    job, rung = world.queue(), threading.Event()
    errors = [RuntimeError("an error nobody thought of")]

    def ring(_: str) -> None:
        if errors:
            raise errors.pop()
        rung.set()

    parts = world.worker()
    hasty = parts.settings.model_copy(update={"sweep_every_seconds": 0.05})
    thread = start_sweeping(replace(parts, settings=hasty, ring=ring))
    assert rung.wait(10), f"{job.id} was never rung for"
    parts.shutting_down.set()
    thread.join(timeout=5)
    assert errors == []


def test_sweeping_goes_on_until_the_worker_shuts_down(world: World) -> None:
    job, parts = world.queue(), world.worker()
    busy = replace(parts, settings=parts.settings.model_copy(update={"sweep_every_seconds": 0.05}))
    thread = start_sweeping(busy)
    assert leases.claim(world.store, job.id, "lost", lease_seconds=0.05)
    deadline = time.monotonic() + 10
    while job.id not in world.rung:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    busy.shutting_down.set()
    thread.join(timeout=5)
    assert not thread.is_alive()
    assert threading.current_thread() is not thread


def test_work_folders_of_lost_attempts_are_removed_and_held_ones_stay(world: World) -> None:
    held, ended, parts = world.queue(), world.queue(), world.worker()
    assert leases.claim(world.store, held.id, "alive", lease_seconds=60)
    work_dir = parts.settings.resolved_work_dir
    kept = work_dir / held.id / "attempt-1"
    gone = work_dir / ended.id / "attempt-1"
    for folder in (kept, gone):
        folder.mkdir(parents=True)
        (folder / "spec.json").write_text("{}")
    remove_leftovers(parts)
    assert kept.exists()
    assert not gone.parent.exists()


def test_a_workers_copy_of_a_deleted_dataset_goes_and_one_that_another_project_has_stays(world: World) -> None:
    parts = world.worker()
    private, shared = upload(world, b"PAR1 private"), upload(world, b"PAR1 shared")
    upload(world, b"PAR1 shared")
    copies = [fetch_dataset(parts, get(world, one)) for one in (private, shared)]
    for one in (private, shared):
        assert delete_dataset(world.store, DEFAULT_PROJECT_ID, one) == one
    remove_deleted(parts)
    assert [path.exists() for path in copies] == [False, True]
    assert [info.key for info in parts.objects.list("projects/") if private in info.key] == []


def test_orphans_go_by_themselves_only_where_the_operator_wants_it(world: World) -> None:
    key = f"projects/{DEFAULT_PROJECT_ID}/datasets/ds_{'0' * 26}/data.parquet"
    objects = world.worker().objects
    objects.put_bytes(key, b"nobody's")
    for hours, left in ((None, 1), (1.0, 0)):
        parts = world.worker()
        settings = parts.settings.model_copy(update={"orphans_every_hours": hours, "orphan_grace_hours": -1.0})
        clean = Cleaning(replace(parts, settings=settings))
        clean()
        assert len(list(objects.list("projects/"))) == 1, "not at the start"
        clean.orphans_at = 0.0
        clean()
        assert len(list(objects.list("projects/"))) == left
