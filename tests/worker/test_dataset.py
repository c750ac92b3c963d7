"""An uploaded dataset is checked by a process and becomes ready or failed."""

import hashlib
from dataclasses import replace

from service.store import datasets
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records import DatasetRecord
from tests.worker.conftest import World
from worker.dataset import prepare_dataset


def upload(world: World, content: bytes, sha256: str | None = None) -> str:
    dataset = datasets.create(world.store, project_id=DEFAULT_PROJECT_ID, filename="my pairs.parquet")
    key = f"projects/{DEFAULT_PROJECT_ID}/datasets/{dataset.id}/data.parquet"
    world.worker().objects.put_bytes(key, content)
    digest = sha256 or hashlib.sha256(content).hexdigest()
    datasets.uploaded(world.store, dataset.id, size_bytes=len(content), sha256=digest, object_key=key)
    return dataset.id


def get(world: World, dataset_id: str) -> DatasetRecord:
    found = datasets.get(world.store, DEFAULT_PROJECT_ID, dataset_id)
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
    assert failed.report["problems"][0]["message"] == "no file 'a.png' in my pairs.parquet"


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
