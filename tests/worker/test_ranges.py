"""A data set larger than a worker's disk may hold is checked and read from a real S3 server, by ranges."""

import hashlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from alignment_core.datasets.detect import open_preferences
from alignment_core.datasets.in_parts import file_in_parts
from alignment_core.datasets.preflight import check_rows
from alignment_core.datasets.rows import PreferenceRow
from alignment_core.errors import AlignmentError
from service.store import datasets, events, jobs
from service.store.objects import ObjectStore, open_objects
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.uploads import DatasetRecord
from service.store.unavailable import ObjectsUnavailable
from tests.alignment_core.datasets.builders import image_bytes, write_parquet
from tests.alignment_core.tiny import UNJUDGED, save_pairs, save_tiny_pipeline, tiny_spec
from tests.servers.swift import S3Server
from tests.service.store.test_objects import s3_settings
from tests.worker.conftest import World
from worker.dataset import prepare_dataset
from worker.parts import WorkerParts
from worker.ranges import DATA, data_of
from worker.run import run_job
from worker.shards import SHARDS, answering_check

LIMIT = 8 * 2**20
TRAINER = (sys.executable, "-m", "alignment_core")


@dataclass
class Uploaded:
    """A file of 13 MiB in the store, and a worker that may hold 8."""

    parts: WorkerParts
    file: Path
    dataset: DatasetRecord
    key: str

    @property
    def now(self) -> DatasetRecord:
        found = datasets.get(self.parts.store, DEFAULT_PROJECT_ID, self.dataset.id)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    images = [image_bytes(number, 512, 512) for number in range(3)]
    noise = [image_bytes(10 + number, 512, 512) for number in range(14)]
    rows = [
        {"prompt": f"prompt {number}", "chosen": one, "rejected": images[number % 3]}
        for number, one in enumerate(noise)
    ]
    return write_parquet(tmp_path_factory.mktemp("data") / "pairs.parquet", rows, row_group_size=2)


@pytest.fixture
def objects(world: World, s3_server: S3Server) -> ObjectStore:
    return open_objects(s3_settings(s3_server, world.root))


@pytest.fixture
def uploaded(world: World, objects: ObjectStore, file: Path) -> Uploaded:
    dataset_id = put(world, objects, file)
    parts = worker_with(world, objects, "first", dataset_disk_bytes=LIMIT, storage_patience_seconds=0.0)
    found = datasets.get(world.store, DEFAULT_PROJECT_ID, dataset_id)
    assert found is not None
    return Uploaded(parts, file, found, key_of(dataset_id))


def key_of(dataset_id: str) -> str:
    return f"projects/{DEFAULT_PROJECT_ID}/datasets/{dataset_id}/data.parquet"


def put(world: World, objects: ObjectStore, file: Path) -> str:
    made = datasets.create(world.store, project_id=DEFAULT_PROJECT_ID, filename="my pairs.parquet")
    objects.put_file(key_of(made.id), file)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    size_bytes = file.stat().st_size
    datasets.uploaded(world.store, made.id, size_bytes=size_bytes, sha256=digest, object_key=key_of(made.id))
    return made.id


def worker_with(world: World, objects: ObjectStore, name: str, **settings: object) -> WorkerParts:
    parts = world.worker(name)
    changed = parts.settings.model_copy(update=settings)
    return replace(parts, settings=changed, objects=objects, trainer=TRAINER)


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_its_rows_are_those_of_the_whole_file_and_the_disk_holds_no_more_than_it_may(
    uploaded: Uploaded, tmp_path: Path
) -> None:
    path = data_of(uploaded.parts, uploaded.dataset, tmp_path / DATA, tmp_path / SHARDS)
    most, rows = 0, list[PreferenceRow]()
    with answering_check(uploaded.parts, uploaded.dataset, tmp_path) as exchange:
        source = open_preferences(path)
        for row in source.read(source.annotations()):
            assert isinstance(row, PreferenceRow)
            rows.append(row)
            most = max(most, bytes_in(tmp_path))
    whole = open_preferences(uploaded.file)
    assert rows == list(whole.read(whole.annotations()))
    assert exchange is not None
    assert exchange.read_bytes >= uploaded.file.stat().st_size > 1.5 * LIMIT
    assert 0 < most <= LIMIT
    assert not (uploaded.parts.settings.resolved_cache_dir / "datasets").exists()


def test_its_check_says_what_the_check_of_the_whole_file_says_and_leaves_nothing(uploaded: Uploaded) -> None:
    prepare_dataset(uploaded.parts, uploaded.dataset.id)
    ready = uploaded.now
    assert ready.state == "ready"
    assert ready.report == check_rows(uploaded.file).report.model_dump(mode="json")
    assert not list(uploaded.parts.settings.resolved_work_dir.glob(".check-*"))
    assert not (uploaded.parts.settings.resolved_cache_dir / "datasets").exists()


def test_a_second_worker_need_not_read_the_file_through(uploaded: Uploaded, tmp_path: Path) -> None:
    data_of(uploaded.parts, uploaded.dataset, tmp_path / "first", tmp_path / SHARDS)
    uploaded.parts.objects.delete(uploaded.key)
    data_of(uploaded.parts, uploaded.dataset, tmp_path / "second", tmp_path / SHARDS)
    lists = [path.read_bytes() for path in sorted(tmp_path.rglob("blocks.sha256"))]
    assert lists[0] == lists[1]


def test_a_damaged_list_of_blocks_is_made_again(uploaded: Uploaded, tmp_path: Path) -> None:
    path = data_of(uploaded.parts, uploaded.dataset, tmp_path / "first", tmp_path / SHARDS)
    key = uploaded.key.replace("data.parquet", "blocks.sha256")
    uploaded.parts.objects.put_bytes(key, bytes(32 * 14))
    again = data_of(uploaded.parts, uploaded.dataset, tmp_path / "second", tmp_path / SHARDS)
    assert (again / "blocks.sha256").read_bytes() == (path / "blocks.sha256").read_bytes()


def test_a_file_of_other_bytes_than_were_uploaded_is_refused_before_it_is_read(uploaded: Uploaded) -> None:
    content = uploaded.file.read_bytes()
    uploaded.parts.objects.put_bytes(uploaded.key, content[:-1] + b"x")
    prepare_dataset(uploaded.parts, uploaded.dataset.id)
    error = uploaded.now.error
    assert error is not None
    assert (error.code, error.retryable) == ("object_altered", True)


def test_a_block_that_changes_while_it_is_read_is_refused(uploaded: Uploaded, tmp_path: Path) -> None:
    path = data_of(uploaded.parts, uploaded.dataset, tmp_path / DATA, tmp_path / SHARDS)
    uploaded.parts.objects.put_bytes(uploaded.key, bytes(uploaded.file.stat().st_size))
    with answering_check(uploaded.parts, uploaded.dataset, tmp_path), pytest.raises(AlignmentError) as caught:
        open_preferences(path)
    assert caught.value.code == "object_altered"


@pytest.mark.parametrize(
    ("start", "end", "place"),
    [(0, 10**9, "a" * 32 + ".tmp"), (-1, 5, "a" * 32 + ".tmp"), (0, 5, "../../secret"), (0, 5, "b" * 32 + ".tmp")],
)
def test_a_reader_can_ask_for_nothing_else(
    uploaded: Uploaded, tmp_path: Path, start: int, end: int, place: str
) -> None:
    path = data_of(uploaded.parts, uploaded.dataset, tmp_path / DATA, tmp_path / SHARDS)
    (secret := tmp_path / "secret").write_bytes(b"of another")
    (path / f"{'b' * 32}.tmp").symlink_to(secret)
    with answering_check(uploaded.parts, uploaded.dataset, tmp_path), pytest.raises(AlignmentError) as caught:
        file_in_parts(path)._ranges._asking.ask(  # pyright: ignore[reportAttributeAccessIssue]
            {"verb": "range", "start": start, "end": end, "place": place}
        )
    assert caught.value.code == "store_unavailable"
    assert secret.read_bytes() == b"of another"


def test_a_check_waits_for_a_store_that_goes_away(uploaded: Uploaded) -> None:
    class Leaving:
        """The store, which answers nothing of the file itself after it was read through."""

        def __init__(self, objects: ObjectStore) -> None:
            self._objects = objects

        def __getattr__(self, name: str) -> object:
            return getattr(self._objects, name)

        def open_range(self, key: str, start: int = 0, end: int | None = None) -> object:
            if end is not None:
                uploaded.parts.shutting_down.set()
                raise ObjectsUnavailable(key, "unreachable")
            return self._objects.open_range(key, start, end)

    leaving = replace(uploaded.parts, objects=Leaving(uploaded.parts.objects))  # pyright: ignore[reportArgumentType]
    prepare_dataset(leaving, uploaded.dataset.id)
    assert uploaded.now.state == "checking"


@pytest.mark.slow
def test_a_job_learns_the_same_from_the_file_in_parts_as_another_worker_did_from_the_whole(
    world: World, objects: ObjectStore, tmp_path: Path
) -> None:
    dataset_id = put(world, objects, save_pairs(tmp_path / "pairs.parquet"))
    method = {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": dataset_id}, "beta": 500.0}
    training = {"steps": 2, "batch_size": 2, "learning_rate": 1e-3, "validation_fraction": 0.2}
    model = save_tiny_pipeline(tmp_path / "model")
    spec = tiny_spec(model, tmp_path, method=method, training=training, evaluation=UNJUDGED)
    losses = []
    for name, limit in (("whole", None), ("parts", 1000)):
        parts = worker_with(world, objects, name, share_latents=True, dataset_disk_bytes=limit)
        prepare_dataset(parts, dataset_id)
        job = jobs.create(world.store, project_id=DEFAULT_PROJECT_ID, spec=spec)
        run_job(parts, job.id)
        assert (world.get(job).state, world.get(job).error) == ("succeeded", None)
        said = [event.data for event in events.list_events(world.store, DEFAULT_PROJECT_ID, job.id, limit=500)]
        losses.append([one["metrics"] for one in said if one["type"] == "step_completed"])
        caching = [one for one in said if one["type"] == "phase_progressed" and one["phase"] == "caching"]
        assert (parts.settings.resolved_cache_dir / "datasets").exists() == (name == "whole")
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]
    assert all(one["cached"] == one["done"] for one in caching)  # of the second: what the first has encoded
