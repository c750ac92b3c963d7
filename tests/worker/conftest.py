"""A worker's parts on SQLite and a directory, with the stand-in trainer."""

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from alignment_core.spec import (
    CatalogSource,
    CheckpointSpec,
    DiffusionDPOSpec,
    JobSpec,
    LocalDataset,
    StoredDataset,
    TrainingSpec,
)
from service.settings import Settings
from service.store import jobs
from service.store.catalog import Catalog
from service.store.database import Store, open_store
from service.store.migrations import migrate
from service.store.objects import open_objects
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.jobs import JobRecord
from tests.servers.otlp import Collector, collecting
from worker.parts import WorkerParts
from worker.run import run_job

TRAINER = (sys.executable, str(Path(__file__).parent / "trainer_process.py"))


@dataclass
class World:
    """A store with jobs, and as many workers on it as a test wants."""

    root: Path
    store: Store
    settings: Settings
    rung: list[str] = field(default_factory=list)

    @property
    def catalog_path(self) -> Path:
        """A catalog with one model folder that is really there."""
        (self.root / "model").mkdir(exist_ok=True)
        entry = {"type": "local", "path": "model", "family": "sd", "resolution": 32}
        path = self.root / "catalog.json"
        path.write_text(json.dumps({"models": {"shapes": entry}}))
        return path

    def worker(self, name: str = "first") -> WorkerParts:
        """A worker with a machine of its own: nothing but the database and the objects is shared."""
        settings = self.settings.model_copy(
            update={"cache_dir": self.root / name / "cache", "work_dir": self.root / name / "work"}
        )
        return WorkerParts(
            settings=settings,
            store=self.store,
            objects=open_objects(settings),
            catalog=Catalog.load(self.catalog_path),
            worker_id=name,
            ring=self.rung.append,
            ring_dataset=self.rung.append,
            trainer=TRAINER,
        )

    def queue(self, steps: int = 10, every: int = 4, dataset_id: str | None = None) -> JobRecord:
        """A queued job on a model of the catalog and a dataset that is really there."""
        (self.root / "pairs.parquet").write_bytes(b"PAR1 of a test")
        local = LocalDataset(path=str(self.root / "pairs.parquet"))
        spec = JobSpec(
            model=CatalogSource(name="shapes"),
            method=DiffusionDPOSpec(dataset=StoredDataset(id=dataset_id) if dataset_id else local),
            training=TrainingSpec(steps=steps),
            checkpoints=CheckpointSpec(every=every),
        )
        return jobs.create(self.store, project_id=DEFAULT_PROJECT_ID, spec=spec)

    def get(self, job: JobRecord) -> JobRecord:
        found = jobs.get(self.store, DEFAULT_PROJECT_ID, job.id)
        assert found is not None
        return found


def settings_in(root: Path) -> Settings:
    """Leases and grace times as short as a busy machine allows."""
    return Settings(
        data_dir=root / "data",
        lease_seconds=3,
        heartbeat_seconds=0.3,
        poll_seconds=0.1,
        cancel_grace_seconds=5,
        allow_local_paths=True,
    )


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    settings = settings_in(tmp_path)
    migrate(settings.resolved_database_url)
    store = open_store(settings.resolved_database_url)
    yield World(tmp_path, store, settings)
    store.close()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """What spans are sent to, by the standard variables of this process."""
    with collecting() as found:
        for name, value in found.environment().items():
            monkeypatch.setenv(name, value)
        yield found


@pytest.fixture
def behave(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Say what befalls the training processes that are started from now on (see `trainer_process.py`)."""
    return lambda behaviour: monkeypatch.setenv("TRAINER_BEHAVIOUR", behaviour)


@dataclass
class Background:
    """A job that runs in a thread, as it does in a worker."""

    parts: WorkerParts
    thread: threading.Thread

    def join(self) -> None:
        self.thread.join(timeout=30)
        assert not self.thread.is_alive(), "the job went on"


@pytest.fixture
def start() -> Iterator[Callable[[WorkerParts, JobRecord], Background]]:
    started: list[Background] = []

    def _start(parts: WorkerParts, job: JobRecord) -> Background:
        thread = threading.Thread(target=run_job, args=(parts, job.id), daemon=True)
        thread.start()
        started.append(Background(parts, thread))
        return started[-1]

    yield _start
    for background in started:
        background.parts.shutting_down.set()
        background.thread.join(timeout=30)
