"""A checkpoint that is asked for in another form is made by a process, once, and its files lie in the store."""

import json
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from service.store import deletion, exports, outputs
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.checkpoints import CheckpointRecord, ExportRecord
from service.store.waiting import next_exports, num_beside_jobs
from tests.servers.process import wait_until
from tests.worker.conftest import World
from worker.export import make_export
from worker.run import run_job
from worker.sweep import remove_deleted, sweep
from worker.turns import make_exports

Behave = Callable[[str], None]


@pytest.fixture
def checkpoint(world: World) -> CheckpointRecord:
    job = world.queue(steps=4, every=4)
    run_job(world.worker(), job.id)
    found = outputs.latest_checkpoint(world.store, job.id)
    assert found is not None
    return found


def ask(world: World, checkpoint: CheckpointRecord, *, again: bool = False) -> ExportRecord:
    export = exports.ask(world.store, checkpoint, "diffusers", again=again)
    assert export is not None
    return export


def get(world: World, checkpoint: CheckpointRecord) -> ExportRecord:
    export = exports.get(world.store, checkpoint.id, "diffusers")
    assert export is not None
    return export


def test_it_is_made_once_whoever_asks(world: World, checkpoint: CheckpointRecord) -> None:
    asked = ask(world, checkpoint)
    assert (ask(world, checkpoint).id, num_beside_jobs(world.store, 9)) == (asked.id, 1)
    make_exports(world.worker())
    ready = get(world, checkpoint)
    assert (ready.state, ready.percent, ready.attempt, next_exports(world.store)) == ("ready", 100, 1, ())
    (file,) = ready.files
    content = b"".join(world.worker().objects.open_range(file.object_key))
    told = json.loads(content)
    assert len(content) == file.size_bytes
    assert told["format"] == "diffusers"
    assert "manifest.json" in told["files"]
    assert not [path for path in told["files"] if path.startswith("training_state")], "nothing that only training needs"
    assert told["sources"]["models"]["shapes"]["path"].endswith("/model")
    assert told["sources"]["label"]["job_id"] == checkpoint.job_id
    ask(world, checkpoint, again=True)
    make_exports(world.worker())
    assert get(world, checkpoint).attempt == 1
    assert not list(world.worker().settings.resolved_work_dir.glob(".export-*"))


def test_one_that_fails_says_why_and_is_made_anew_when_asked_again(
    world: World, checkpoint: CheckpointRecord, behave: Behave
) -> None:
    behave('{"export_fails": "base_model_differs"}')
    ask(world, checkpoint)
    make_exports(world.worker())
    failed = get(world, checkpoint)
    assert failed.error is not None
    assert (failed.state, failed.error.code, failed.error.message) == ("failed", "base_model_differs", "as told")
    assert ask(world, checkpoint).state == "failed"
    behave("{}")
    assert ask(world, checkpoint, again=True).error is None
    make_exports(world.worker())
    assert (get(world, checkpoint).state, get(world, checkpoint).attempt) == ("ready", 2)


def test_a_process_that_crashes_and_one_that_hangs_end_as_failures(world: World, checkpoint: CheckpointRecord) -> None:
    ask(world, checkpoint)
    make_exports(replace(world.worker(), trainer=("false",)))
    crashed = get(world, checkpoint).error
    assert crashed is not None
    assert (crashed.code, crashed.category) == ("export_crashed", "system")
    ask(world, checkpoint, again=True)
    hasty = replace(world.worker(), trainer=("sh", "-c", "sleep 60 & wait"))
    make_exports(replace(hasty, settings=hasty.settings.model_copy(update={"max_export_seconds": 0.5})))
    late = get(world, checkpoint).error
    assert late is not None
    assert late.code == "export_timed_out"


def test_a_worker_that_shuts_down_leaves_it_to_another(
    world: World, checkpoint: CheckpointRecord, behave: Behave
) -> None:
    behave('{"export_seconds": 60}')
    export, leaving = ask(world, checkpoint), world.worker()
    thread = threading.Thread(target=make_export, args=(leaving, export.id))
    thread.start()
    wait_until(lambda: get(world, checkpoint).state == "running", "the claim")
    leaving.shutting_down.set()
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert (get(world, checkpoint).state, world.rung) == ("queued", [export.id])
    behave("{}")
    make_exports(world.worker("second"))
    assert (get(world, checkpoint).state, get(world, checkpoint).attempt) == ("ready", 2)


def test_a_lost_workers_export_is_queued_again_and_at_last_fails(world: World, checkpoint: CheckpointRecord) -> None:
    export, worker = ask(world, checkpoint), world.worker("second")
    most = worker.settings.max_attempts
    for number in range(1, most + 1):
        assert exports.claim(world.store, export.id, "lost", lease_seconds=-1) is not None
        sweep(worker)
        assert get(world, checkpoint).state == ("failed" if number == most else "queued")
        assert not exports.renew(world.store, export.id, number, 10), "the lost one holds nothing"
    error = get(world, checkpoint).error
    assert error is not None
    assert error.code == "attempts_exhausted"
    assert export.id in world.rung


def test_a_worker_without_the_model_says_so(world: World, checkpoint: CheckpointRecord) -> None:
    worker = world.worker()
    ask(world, checkpoint)
    make_exports(replace(worker, catalog=worker.catalog.model_copy(update={"models": {}})))
    error = get(world, checkpoint).error
    assert error is not None
    assert (error.code, error.message) == ("catalog_entry_missing", "this worker's catalog has no 'shapes'")


def test_a_deleted_checkpoint_takes_its_exports_along(world: World, checkpoint: CheckpointRecord) -> None:
    ask(world, checkpoint)
    make_exports(world.worker())
    (file,) = get(world, checkpoint).files
    worker = world.worker()
    assert deletion.delete_checkpoint(world.store, DEFAULT_PROJECT_ID, checkpoint.id, even_result=True)
    assert exports.get(world.store, checkpoint.id, "diffusers") is None
    remove_deleted(worker)
    assert not list(worker.objects.list(file.object_key))
    assert exports.ask(world.store, checkpoint, "kohya") is None


def test_what_is_deleted_while_it_is_made_ends_the_making(
    world: World, checkpoint: CheckpointRecord, behave: Behave
) -> None:
    behave('{"export_seconds": 60}')
    export, worker = ask(world, checkpoint), world.worker()
    thread = threading.Thread(target=make_export, args=(worker, export.id))
    thread.start()
    wait_until(lambda: get(world, checkpoint).state == "running", "the claim")
    deletion.delete_checkpoint(world.store, DEFAULT_PROJECT_ID, checkpoint.id, even_result=True)
    thread.join(timeout=30)
    assert not thread.is_alive()
