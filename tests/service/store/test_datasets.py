from collections.abc import Callable
from pathlib import Path

import pytest

from alignment_core.reports import DatasetProblem, DatasetReport
from service.store import datasets, keys, projects
from service.store.database import Store
from service.store.fence import Fenced
from service.store.ids import new_id
from service.store.objects import DirectoryStore
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.base import JobError
from service.store.records.uploads import Browsing, DatasetRecord
from service.store.removals import remove_due

UNREADABLE = JobError(code="unreadable", message="not a parquet file", category="user")
PATIENT = {"max_attempts": 3, "upload_timeout_seconds": 3600}


def report(*problems: DatasetProblem, num_usable_rows: int = 8) -> DatasetReport:
    return DatasetReport(
        format="parquet",
        num_rows=8,
        num_usable_rows=num_usable_rows,
        num_groups=8,
        num_unique_prompts=8,
        num_empty_prompts=0,
        num_ties=0,
        num_soft_labels=0,
        num_swapped=0,
        image_sizes={"32x32": 16},
        size_bytes=100,
        content_sha256="0" * 64,
        problems=list(problems),
    )


@pytest.fixture
def uploaded(store: Store) -> DatasetRecord:
    made = datasets.create(store, project_id=PROJECT, filename="pairs.parquet", name="pairs")
    return datasets.uploaded(store, made.id, size_bytes=100, sha256="1" * 64, object_key="projects/p/x")


def get(store: Store, dataset: DatasetRecord) -> DatasetRecord:
    found = datasets.get(store, PROJECT, dataset.id)
    assert found is not None
    return found


def test_a_dataset_is_uploaded_checked_and_ready(store: Store) -> None:
    made = datasets.create(store, project_id=PROJECT, filename="pairs.parquet")
    assert (made.state, made.size_bytes, made.object_key) == ("uploading", None, None)
    assert datasets.claim(store, made.id, "w", 60) is None, "nothing to check yet"
    waiting = datasets.uploaded(store, made.id, size_bytes=100, sha256="1" * 64, object_key="key")
    assert (waiting.state, waiting.size_bytes, waiting.object_key) == ("checking", 100, "key")
    claim = datasets.claim(store, made.id, "w", 60)
    assert claim is not None
    ready = datasets.set_report(store, made.id, claim.attempt, report())
    assert (ready.state, ready.format, ready.error) == ("ready", "parquet", None)
    assert ready.report == report().model_dump(mode="json")
    assert get(store, made) == ready


def test_a_dataset_without_usable_rows_fails_and_says_why(store: Store, uploaded: DatasetRecord) -> None:
    datasets.claim(store, uploaded.id, "w", 60)
    problem = DatasetProblem(code="undecodable_image", severity="error", message="no image", count=8, rows=[1, 2])
    failed = datasets.set_report(store, uploaded.id, 1, report(problem, num_usable_rows=0))
    assert failed.state == "failed"
    assert failed.report is not None
    assert failed.error is not None
    assert (failed.error.code, failed.error.message, failed.error.category) == ("dataset_unusable", "no image", "user")


def test_one_worker_checks_at_a_time(store: Store, uploaded: DatasetRecord) -> None:
    assert datasets.claim(store, uploaded.id, "worker-1", 60) is not None
    assert datasets.claim(store, uploaded.id, "worker-2", 60) is None


def test_a_lost_checker_is_replaced_and_writes_nothing(store: Store, uploaded: DatasetRecord) -> None:
    datasets.claim(store, uploaded.id, "worker-1", -1)
    assert datasets.sweep(store, **PATIENT) == (uploaded.id,)
    second = datasets.claim(store, uploaded.id, "worker-2", 60)
    assert second is not None
    assert second.attempt == 2
    with pytest.raises(Fenced):
        datasets.set_report(store, uploaded.id, 1, report())
    with pytest.raises(Fenced):
        datasets.fail(store, uploaded.id, 1, UNREADABLE)
    assert not datasets.renew(store, uploaded.id, 1, 60)
    assert datasets.renew(store, uploaded.id, 2, 60)
    assert datasets.fail(store, uploaded.id, 2, UNREADABLE).error == UNREADABLE


def test_a_file_that_kills_every_checker_fails(store: Store, uploaded: DatasetRecord) -> None:
    for _ in range(3):
        assert datasets.claim(store, uploaded.id, "w", -1) is not None
        datasets.sweep(store, **PATIENT)
    failed = get(store, uploaded)
    assert failed.state == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.category) == ("attempts_exhausted", "system")


@pytest.mark.parametrize("end", ["ready", "failed", "lost"])
def test_what_lost_attempts_stored_to_be_browsed_is_removed(
    store: Store, uploaded: DatasetRecord, tmp_path: Path, end: str
) -> None:
    objects = DirectoryStore(tmp_path / "objects")

    def stored(attempt: int) -> str:
        key = keys.browsing_key(PROJECT, uploaded.id, attempt)
        objects.put_bytes(key, b"rows")
        return key

    for attempt in (1, 2):
        datasets.claim(store, uploaded.id, "w", -1)
        stored(attempt)
        datasets.sweep(store, **PATIENT)
    datasets.claim(store, uploaded.id, "w", -1)
    last = stored(3)
    if end == "ready":
        datasets.set_report(store, uploaded.id, 3, report(), Browsing(object_key=last, size_bytes=4))
    elif end == "failed":
        objects.delete(last)  # a check that fails has stored nothing
        datasets.fail(store, uploaded.id, 3, UNREADABLE)
    else:
        datasets.sweep(store, **PATIENT)
        assert get(store, uploaded).state == "failed"
    remove_due(store, objects)
    assert [one.key for one in objects.list("projects/")] == ([last] if end == "ready" else [])


def test_a_check_that_was_given_back_goes_on_at_once_and_counts_as_no_loss(
    store: Store, uploaded: DatasetRecord
) -> None:
    for attempt in range(1, 6):
        claim = datasets.claim(store, uploaded.id, "leaving", 60)
        assert claim is not None
        assert claim.attempt == attempt
        datasets.give_back(store, uploaded.id, attempt)
        assert datasets.sweep(store, **PATIENT) == (), "nobody was lost"
    with pytest.raises(Fenced):
        datasets.give_back(store, uploaded.id, 1)
    datasets.claim(store, uploaded.id, "killed", -1)
    assert datasets.sweep(store, **PATIENT) == (uploaded.id,), "the first that was lost"
    assert get(store, uploaded).state == "checking"


def test_an_upload_that_never_ends_fails(store: Store) -> None:
    made = datasets.create(store, project_id=PROJECT, filename="pairs.parquet")
    assert datasets.sweep(store, **PATIENT) == ()
    assert get(store, made).state == "uploading"
    datasets.sweep(store, **{**PATIENT, "upload_timeout_seconds": -1})
    failed = get(store, made)
    assert failed.error is not None
    assert failed.error.code == "upload_interrupted"
    late = datasets.uploaded(store, made.id, size_bytes=1, sha256="0" * 64, object_key="k")
    assert late.state == "failed"


def test_a_refused_upload_keeps_its_reason(store: Store, uploaded: DatasetRecord) -> None:
    made = datasets.create(store, project_id=PROJECT, filename="pairs.parquet")
    assert datasets.upload_failed(store, made.id, UNREADABLE).error == UNREADABLE
    assert datasets.upload_failed(store, uploaded.id, UNREADABLE).state == "checking"


def test_another_projects_dataset_is_invisible(store: Store, uploaded: DatasetRecord) -> None:
    other = projects.create_project(store, "other").id
    assert datasets.get(store, other, uploaded.id) is None
    assert datasets.list_datasets(store, other).data == ()


def test_lists_are_newest_first_and_paged(store: Store) -> None:
    made = [datasets.create(store, project_id=PROJECT, filename=f"{number}.zip").id for number in range(3)]
    page = datasets.list_datasets(store, PROJECT, limit=2)
    assert ([found.id for found in page.data], page.has_more) == ([made[2], made[1]], True)
    page = datasets.list_datasets(store, PROJECT, after_id=made[1], limit=2)
    assert ([found.id for found in page.data], page.has_more) == ([made[0]], False)


def test_creating_under_the_same_id_twice_makes_one_dataset(store: Store) -> None:
    dataset_id = new_id("ds")
    create: Callable[[], DatasetRecord] = lambda: datasets.create(  # noqa: E731
        store, project_id=PROJECT, filename="a.zip", dataset_id=dataset_id
    )
    assert create() == create()


@pytest.mark.parametrize(("field", "text"), [("name", "n" * 201), ("filename", "f" * 256), ("filename", "a\0b")])
def test_names_that_a_database_cannot_hold_are_refused(store: Store, field: str, text: str) -> None:
    with pytest.raises(ValueError, match=f"^{field} "):
        datasets.create(store, **{"project_id": PROJECT, "filename": "a.zip", field: text})
