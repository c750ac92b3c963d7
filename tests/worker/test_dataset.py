"""An uploaded dataset is checked by a process and becomes ready or failed."""

import hashlib
import threading
import time
from dataclasses import replace
from pathlib import Path

from alignment_core.browsing import BrowsingReader
from alignment_core.errors import DISK_UNAVAILABLE
from alignment_core.events import RunFailed, event_to_json
from alignment_core.spec import ColumnMapping
from service.store import datasets, keys, projects
from service.store.objects import open_objects
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.uploads import DatasetRecord
from service.store.waiting import next_datasets
from tests.servers.process import wait_until
from tests.servers.swift import S3Server
from tests.service.store.test_objects import s3_settings
from tests.worker.conftest import World
from worker.dataset import prepare_dataset
from worker.turns import check_uploaded_datasets


def upload(
    world: World,
    content: bytes,
    sha256: str | None = None,
    project_id: str = DEFAULT_PROJECT_ID,
    columns: ColumnMapping | None = None,
) -> str:
    dataset = datasets.create(world.store, project_id=project_id, filename="my pairs.parquet", columns=columns)
    key = f"projects/{project_id}/datasets/{dataset.id}/data.parquet"
    world.worker().objects.put_bytes(key, content)
    digest = sha256 or hashlib.sha256(content).hexdigest()
    datasets.uploaded(world.store, dataset.id, size_bytes=len(content), sha256=digest, object_key=key)
    return dataset.id


def get(world: World, dataset_id: str, project_id: str = DEFAULT_PROJECT_ID) -> DatasetRecord:
    found = datasets.get(world.store, project_id, dataset_id)
    assert found is not None
    return found


def test_a_good_file_becomes_ready_with_its_report(world: World) -> None:
    dataset_id = upload(world, b"PAR1 and rows")
    prepare_dataset(world.worker(), dataset_id)
    ready = get(world, dataset_id)
    assert ready.state == "ready"
    assert ready.report is not None
    assert ready.report["num_usable_rows"] == 3
    assert ready.format == "parquet"


def test_what_people_browse_is_stored_beside_the_file_on_either_store(world: World, s3_server: S3Server) -> None:
    for number, objects in enumerate((world.worker().objects, open_objects(s3_settings(s3_server, world.root)))):
        worker = replace(world.worker(), objects=objects)
        content = b"PAR1 and rows %d" % number
        dataset_id = upload(world, content)
        objects.put_bytes(f"projects/{DEFAULT_PROJECT_ID}/datasets/{dataset_id}/data.parquet", content)
        prepare_dataset(worker, dataset_id)
        ready = get(world, dataset_id)
        key = keys.browsing_key(DEFAULT_PROJECT_ID, dataset_id, 1)
        assert (ready.state, ready.browsing_key, ready.browsing_bytes) == ("ready", key, objects.head(key).size_bytes)
        reader = BrowsingReader(ready.browsing_bytes, lambda start, end: b"".join(objects.open_range(key, start, end)))  # noqa: B023
        assert [one.prompt for one in reader.rows(None, 0, 10)[0]] == ["prompt 1", "prompt 2", "prompt 3"]
    assert list(world.settings.resolved_work_dir.glob(".check-*")) == []


def test_a_file_that_cannot_be_read_leaves_nothing_to_browse(world: World) -> None:
    dataset_id = upload(world, b"<html>")
    prepare_dataset(world.worker(), dataset_id)
    failed = get(world, dataset_id)
    assert (failed.state, failed.browsing_key, failed.browsing_bytes) == ("failed", None, 0)


def test_the_check_reads_the_columns_as_the_upload_says(world: World) -> None:
    dataset_id = upload(world, b"PAR1 and rows", columns={"prompt": "caption"})
    prepare_dataset(world.worker(), dataset_id)
    report = get(world, dataset_id).report
    assert report is not None
    assert report["problems"][0]["message"] == '{"prompt": "caption"}'


def test_an_unreadable_file_fails_with_the_checks_own_words_and_the_users_file_name(world: World) -> None:
    dataset_id = upload(world, b"<html>")
    prepare_dataset(world.worker(), dataset_id)
    failed = get(world, dataset_id)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error.code == "unreadable_file"
    assert failed.error.message == "my pairs.parquet is no parquet file: it does not start with PAR1"


def test_a_file_with_broken_rows_fails_with_its_report_and_the_users_file_name_in_both(world: World) -> None:
    dataset_id = upload(world, b"PAR1 and broken rows")
    prepare_dataset(world.worker(), dataset_id)
    failed = get(world, dataset_id)
    assert failed.error is not None
    assert failed.report is not None
    assert (failed.error.code, failed.error.message) == ("dataset_unusable", "no file 'a.png' in my pairs.parquet")
    (problem,) = failed.report["problems"]
    assert problem["message"] == problem["details"][0]["message"] == "no file 'a.png' in my pairs.parquet"


def test_a_check_that_crashes_is_a_system_error(world: World) -> None:
    dataset_id = upload(world, b"PAR1")
    prepare_dataset(replace(world.worker(), trainer=("false",)), dataset_id)
    error = get(world, dataset_id).error
    assert error is not None
    assert (error.code, error.category) == ("check_crashed", "system")


def test_bytes_that_changed_in_the_store_are_refused(world: World) -> None:
    dataset_id = upload(world, b"PAR1", sha256="0" * 64)
    prepare_dataset(world.worker(), dataset_id)
    error = get(world, dataset_id).error
    assert error is not None
    assert error.code == "object_altered"


def test_a_worker_that_shuts_down_leaves_the_check_to_another(world: World) -> None:
    dataset_id = upload(world, b"PAR1")
    leaving = replace(world.worker(), trainer=("sh", "-c", "sleep 60 & wait"))
    leaving.shutting_down.set()
    prepare_dataset(leaving, dataset_id)
    assert get(world, dataset_id).state == "checking"
    assert world.rung == [dataset_id]
    prepare_dataset(world.worker("second"), dataset_id)
    assert get(world, dataset_id).state == "ready"


def test_a_dataset_that_waits_for_nothing_is_left_alone(world: World) -> None:
    dataset_id = upload(world, b"PAR1")
    prepare_dataset(world.worker(), dataset_id)
    prepare_dataset(world.worker("second"), dataset_id)
    assert get(world, dataset_id).attempt == 1


def test_a_check_that_takes_too_long_is_ended_and_names_the_limit(world: World) -> None:
    dataset_id = upload(world, b"PAR1")
    worker = world.worker()
    hasty = replace(
        worker,
        trainer=("sh", "-c", "sleep 60 & wait"),
        settings=worker.settings.model_copy(update={"max_check_seconds": 0.5}),
    )
    prepare_dataset(hasty, dataset_id)
    error = get(world, dataset_id).error
    assert error is not None
    assert (error.code, error.category) == ("check_timed_out", "user")
    assert error.message == "my pairs.parquet: its check took longer than the 0.5 seconds that a check may take here"


def test_a_slow_check_does_not_hold_up_another_owners(world: World) -> None:
    """One owner's four slow checks, on a worker of four: three are at work, and the fourth checker takes a stranger's."""
    slow = [upload(world, b"PAR1 slow %d" % number) for number in range(4)]
    stuck = replace(world.worker("stuck"), trainer=("sh", "-c", "sleep 60 & wait"))
    threads = [threading.Thread(target=check_uploaded_datasets, args=(stuck,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(get(world, one).attempt for one in slow) == 3, "three checks")
    wait_until(lambda: sum(thread.is_alive() for thread in threads) == 3, "one free checker")
    other = projects.create_project(world.store, "other").id
    quick = upload(world, b"PAR1 quick", project_id=other)
    check_uploaded_datasets(world.worker("free"))
    assert get(world, quick, other).state == "ready"
    assert [get(world, one).attempt for one in slow] == [1, 1, 1, 0]
    stuck.shutting_down.set()
    for thread in threads:
        thread.join(30)


def test_a_store_that_is_away_costs_a_check_no_attempt(world: World) -> None:
    dataset_id = upload(world, b"PAR1")
    worker = world.worker()
    hasty = replace(worker, settings=worker.settings.model_copy(update={"storage_patience_seconds": 0}))
    store, aside = worker.settings.objects_dir, world.root / "not mounted"
    store.rename(aside)
    checking = threading.Thread(target=check_uploaded_datasets, args=(hasty,))
    checking.start()
    wait_until(lambda: get(world, dataset_id).attempt == 1, "the claim")
    time.sleep(0.5)
    assert checking.is_alive()
    hasty.shutting_down.set()
    checking.join(30)
    waiting = get(world, dataset_id)
    assert (waiting.state, waiting.error) == ("checking", None)
    assert next_datasets(world.store) == (dataset_id,), "it need not be lost first"
    aside.rename(store)
    check_uploaded_datasets(world.worker("second"))
    assert get(world, dataset_id).state == "ready"


def test_a_dataset_that_fills_the_disk_of_every_checker_is_told_so(world: World, small_disk: Path) -> None:
    dataset_id = upload(world, b"PAR1" + bytes(2 * 2**20))
    worker = world.worker()
    settings = worker.settings.model_copy(
        update={"storage_patience_seconds": 0, "cache_dir": small_disk / "cache", "max_attempts": 2}
    )
    check_uploaded_datasets(replace(worker, settings=settings))
    failed = get(world, dataset_id)
    assert failed.error is not None
    assert (failed.state, failed.error.code, failed.attempt) == ("failed", "worker_disk_full", 2)
    assert failed.error.retryable


def test_a_check_that_runs_out_of_disk_is_no_verdict_on_the_data(world: World) -> None:
    dataset_id = upload(world, b"PAR1")
    told = RunFailed(code=DISK_UNAVAILABLE, message="full", category="capacity", retryable=True)
    command = ("sh", "-c", f"echo '{event_to_json(told)}'; exit 1")
    worker = replace(world.worker(), trainer=command)
    hasty = replace(worker, settings=worker.settings.model_copy(update={"storage_patience_seconds": 0}))
    prepare_dataset(hasty, dataset_id)
    assert get(world, dataset_id).state == "checking"
    prepare_dataset(world.worker("second"), dataset_id)
    assert get(world, dataset_id).state == "ready"
