"""Stores and disks that are full, read-only or broken: waited for, then the job is paused, and nothing of it is lost."""

import contextlib
import errno
import json
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psycopg.errors
import pytest
import sqlalchemy as sa
from sqlalchemy import event as sa_event
from sqlalchemy.exc import InternalError, OperationalError, ProgrammingError

from alignment_core.spec import JobSpec
from service.store import events, jobs, outputs
from service.store.models import Job
from service.store.objects import DirectoryStore, ObjectStore
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.jobs import JobRecord
from service.store.unavailable import ObjectsUnavailable
from tests.worker.conftest import Background, World
from tests.worker.test_run import Behave, Start, final_total, steps_trained, types_of, undisturbed_total, wait_until
from worker.parts import WorkerParts
from worker.patience import away_of
from worker.run import run_job
from worker.sweep import sweep


def parts_on(world: World, disk: Path, patience: float = 60, name: str = "first") -> WorkerParts:
    """A worker whose object store lies on `disk`."""
    parts = world.worker(name)
    settings = parts.settings.model_copy(update={"storage_patience_seconds": patience})
    return replace(parts, settings=settings, objects=DirectoryStore(disk / "objects"))


def fill(disk: Path) -> None:
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def make_room(disk: Path) -> None:
    (disk / "filler").unlink()


def warnings_of(world: World, job: JobRecord) -> list[str]:
    found = events.list_events(world.store, DEFAULT_PROJECT_ID, job.id, limit=10_000)
    return [event.data["code"] for event in found if event.type == "warning_raised"]


def assert_undisturbed(world: World, job: JobRecord, objects: ObjectStore) -> None:
    ended = world.get(job)
    assert (ended.state, ended.error) == ("succeeded", None)
    assert final_total(world, job, objects) == pytest.approx(undisturbed_total(job))


def test_a_store_that_is_full_for_a_while_costs_no_step(world: World, small_disk: Path, start: Start) -> None:
    job, parts = world.queue(), parts_on(world, small_disk)
    fill(small_disk)
    background = start(parts, job)
    wait_until(lambda: 4 in steps_trained(world, job))
    time.sleep(1)
    assert world.get(job).state == "running"
    make_room(small_disk)
    background.join()
    assert world.get(job).attempt == 1
    assert steps_trained(world, job) == list(range(1, 11))
    assert_undisturbed(world, job, parts.objects)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    fill(disk)
    yield
    make_room(disk)


@contextmanager
def read_only(disk: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@pytest.mark.parametrize(
    ("trouble", "code", "told"),
    [
        (full, "object_store_full", "the object store is full"),
        (read_only, "object_store_read_only", "the object store is read-only"),
    ],
)
def test_a_store_that_stays_away_pauses_the_job_with_the_reason_and_resuming_goes_on(
    world: World, small_disk: Path, trouble, code: str, told: str
) -> None:
    job, parts = world.queue(), parts_on(world, small_disk, patience=0.2)
    with trouble(small_disk):
        run_job(parts, job.id)
        paused = world.get(job)
        assert paused.error is not None
        assert (paused.state, paused.error.code, paused.error.message) == ("paused", code, told)
        assert (paused.error.category, paused.error.retryable) == ("capacity", True)
        assert warnings_of(world, job) == [code]
    jobs.resume(world.store, DEFAULT_PROJECT_ID, job.id)
    run_job(parts, job.id)
    assert_undisturbed(world, job, parts.objects)


@pytest.mark.parametrize(("asked", "state"), [("cancel", "cancelled"), ("pause", "paused"), ("shutdown", "queued")])
def test_nobody_waits_for_a_store_in_a_job_that_should_stop(
    world: World, small_disk: Path, start: Start, asked: str, state: str
) -> None:
    job, parts = world.queue(steps=4), parts_on(world, small_disk, patience=600)
    parts = replace(parts, settings=parts.settings.model_copy(update={"cancel_grace_seconds": 0.5}))
    fill(small_disk)
    background = start(parts, job)
    wait_until(lambda: 4 in steps_trained(world, job))
    match asked:
        case "cancel":
            jobs.request_cancel(world.store, DEFAULT_PROJECT_ID, job.id)
        case "pause":
            jobs.request_pause(world.store, DEFAULT_PROJECT_ID, job.id)
        case _:
            parts.shutting_down.set()
    background.join()
    assert world.get(job).state == state


def test_a_work_folder_without_room_pauses_the_job(world: World, small_disk: Path) -> None:
    job, parts = world.queue(), world.worker()
    changes = {"work_dir": small_disk / "work", "storage_patience_seconds": 0.2}
    parts = replace(parts, settings=parts.settings.model_copy(update=changes))
    parts.settings.resolved_work_dir.mkdir()
    with full(small_disk):
        run_job(parts, job.id)
    error = world.get(job).error
    assert error is not None
    assert (world.get(job).state, error.code, error.message) == (
        "paused",
        "worker_disk_full",
        "the worker's disk is full",
    )
    jobs.resume(world.store, DEFAULT_PROJECT_ID, job.id)
    run_job(parts, job.id)
    assert_undisturbed(world, job, parts.objects)


def test_a_work_folder_that_became_read_only_pauses_the_job(world: World, small_disk: Path) -> None:
    job, parts = world.queue(), world.worker()
    settings = parts.settings.model_copy(update={"work_dir": small_disk / "work", "storage_patience_seconds": 0.2})
    parts = replace(parts, settings=settings)
    (small_disk / "work" / job.id / "attempt-1").mkdir(parents=True)
    with read_only(small_disk):
        run_job(parts, job.id)
    paused = world.get(job)
    assert paused.error is not None
    assert (paused.state, paused.error.code) == ("paused", "worker_disk_read_only")
    jobs.resume(world.store, DEFAULT_PROJECT_ID, job.id)
    run_job(parts, job.id)
    assert_undisturbed(world, job, parts.objects)


def test_a_training_process_without_disk_is_started_again_until_there_is_room(
    world: World, behave: Behave, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "no room").touch()
    behave(json.dumps({"at_step": 6, "event": "no_disk", "while": str(tmp_path / "no room")}))
    job, parts = world.queue(), world.worker()
    background = start(parts, job)
    wait_until(lambda: types_of(world, job).count("run_started") >= 2)
    (tmp_path / "no room").unlink()
    background.join()
    assert "run_failed" not in types_of(world, job)
    assert world.get(job).attempt == 1
    assert_undisturbed(world, job, parts.objects)


def test_a_training_process_that_stays_without_disk_pauses_the_job(
    world: World, behave: Behave, tmp_path: Path
) -> None:
    (tmp_path / "no room").touch()
    behave(json.dumps({"at_step": 6, "event": "no_disk", "while": str(tmp_path / "no room")}))
    job, parts = world.queue(), world.worker()
    hasty = replace(parts, settings=parts.settings.model_copy(update={"storage_patience_seconds": 0}))
    run_job(hasty, job.id)
    paused = world.get(job)
    assert paused.error is not None
    assert (paused.state, paused.error.code) == ("paused", "disk_unavailable")
    assert "run_failed" not in types_of(world, job)
    (tmp_path / "no room").unlink()
    jobs.resume(world.store, DEFAULT_PROJECT_ID, job.id)
    run_job(hasty, job.id)
    assert steps_trained(world, job) == [1, 2, 3, 4, 5, 5, 6, 7, 8, 9, 10], "from the checkpoint of step 4"
    assert_undisturbed(world, job, parts.objects)


@pytest.mark.slow
def test_a_database_without_room_fails_no_job(world: World, start: Start, behave: Behave) -> None:
    behave('{"step_seconds": 0.05}')
    room = threading.Event()

    def limit(connection: sqlite3.Connection, *_: object) -> None:
        pages = 10**6 if room.is_set() else connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")

    job, parts = world.queue(steps=400, every=50), world.worker()
    world.store.engine.dispose()
    sa_event.listen(world.store.engine, "checkout", limit)
    background = start(parts, job)
    wait_until(lambda: not background.thread.is_alive(), 60)
    assert world.get(job).state not in ("failed", "succeeded")
    room.set()
    if world.get(job).state == "paused":
        jobs.resume(world.store, DEFAULT_PROJECT_ID, job.id)
    wait_until(lambda: sweep(parts) or world.get(job).state == "queued", 30)
    behave("{}")
    run_job(parts, job.id)
    assert_undisturbed(world, job, parts.objects)


def sqlite_error(name: str) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ObjectsUnavailable("key: 507", "full"), "object_store_full"),
        (ObjectsUnavailable("key: no answer"), "object_store_unreachable"),
        (OSError(errno.ENOSPC, "no room"), "worker_disk_full"),
        (OSError(errno.EDQUOT, "no room"), "worker_disk_full"),
        (OSError(errno.EROFS, "read-only"), "worker_disk_read_only"),
        (OSError(errno.EIO, "broken"), "worker_disk_broken"),
        (OperationalError("INSERT", {}, sqlite_error("SQLITE_FULL")), "database_full"),
        (OperationalError("INSERT", {}, psycopg.errors.DiskFull()), "database_full"),
        (InternalError("INSERT", {}, psycopg.errors.ReadOnlySqlTransaction()), "database_read_only"),
    ],
    ids=repr,
)
def test_what_is_away_is_told_apart(error: Exception, code: str) -> None:
    away = away_of(error)
    assert away is not None
    assert away.error.code == code


@pytest.mark.parametrize(
    "error",
    [FileNotFoundError(errno.ENOENT, "gone"), ValueError("x"), ProgrammingError("SELEC", {}, Exception("syntax"))],
    ids=repr,
)
def test_mistakes_are_nothing_to_wait_for(error: Exception) -> None:
    assert away_of(error) is None


# --- checkpoints that are not whole --------------------------------------------------------------------------------


def paused_after_checkpoints(
    world: World, start: Callable[[WorkerParts, JobRecord], Background], behave: Behave
) -> JobRecord:
    """A job with checkpoints of steps 4, 8 and some later one, ready to go on."""
    behave('{"step_seconds": 0.02}')
    job, parts = world.queue(steps=60), world.worker()
    background = start(parts, job)
    wait_until(lambda: len(outputs.list_checkpoints(world.store, DEFAULT_PROJECT_ID, job.id)) >= 2)
    parts.shutting_down.set()
    background.join()
    behave("{}")
    return job


@pytest.mark.parametrize("num_damaged", [1, 2])
@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_the_newest_whole_checkpoint_is_where_a_job_goes_on(
    world: World, start: Start, behave: Behave, damage: str, num_damaged: int
) -> None:
    job, second = paused_after_checkpoints(world, start, behave), world.worker("second")
    *whole, last = outputs.list_checkpoints(world.store, DEFAULT_PROJECT_ID, job.id)
    damaged = [last] if num_damaged == 1 else [whole.pop(), last]
    for checkpoint in damaged:
        key = checkpoint.files[0].object_key
        if damage == "missing":
            second.objects.delete(key)
        else:
            content = bytearray(b"".join(second.objects.open_range(key)))
            content[0] ^= 1
            second.objects.put_bytes(key, bytes(content))
    run_job(second, job.id)
    assert warnings_of(world, job) == ["checkpoint_passed_over"] * num_damaged
    told = events.list_events(world.store, DEFAULT_PROJECT_ID, job.id, limit=10_000)
    resumed = [event.data["resumed_from_step"] for event in told if event.type == "run_started"]
    assert resumed == [None, whole[-1].step if whole else None], "without any it starts over"
    assert_undisturbed(world, job, second.objects)


# --- going on from another job's checkpoint ------------------------------------------------------------------------


def test_a_new_job_begins_from_the_checkpoint_of_a_failed_one_and_goes_on_from_its_own(
    world: World, start: Start, behave: Behave
) -> None:
    behave(json.dumps({"at_step": 6, "event": "fail"}))
    failed, parts = world.queue(steps=10), world.worker()
    run_job(parts, failed.id)
    begin = world.get(failed).latest_checkpoint_id
    behave('{"step_seconds": 0.05}')
    spec = JobSpec.model_validate({**failed.spec, "training": {**failed.spec["training"], "steps": 30}})
    job = jobs.create(world.store, project_id=DEFAULT_PROJECT_ID, spec=spec, resume_from_checkpoint_id=begin)
    background = start(parts, job)
    wait_until(lambda: 8 in steps_trained(world, job))
    parts.shutting_down.set()
    background.join()
    second = world.worker("second")
    run_job(second, job.id)
    assert steps_trained(world, job) == list(range(5, 31)), "from step 4 of the other job, and no step twice"
    assert_undisturbed(world, job, second.objects)


def test_a_checkpoint_to_begin_from_that_is_gone_is_named(world: World) -> None:
    """No job begins on a checkpoint that is not there, and none is deleted that an unfinished job names; a hand in the database can do it."""
    job, gone = world.queue(), "ckpt_" + "0" * 26
    with world.store.write() as session:
        session.execute(sa.update(Job).where(Job.id == job.id).values(resume_from_checkpoint_id=gone))
    run_job(world.worker(), job.id)
    error = world.get(job).error
    assert error is not None
    assert (error.code, gone in error.message) == ("checkpoint_missing", True)
