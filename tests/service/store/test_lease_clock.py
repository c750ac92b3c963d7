"""Leases on SQLite outlast any jump of the wall clock, and no restart of the host. The clocks are what these tests turn."""

import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from types import ModuleType

import pytest

from alignment_core.spec import JobSpec
from service.store import datasets, jobs, leases
from service.store.database import Store, open_store
from service.store.projects import DEFAULT_PROJECT_ID

SetClock = Callable[[timedelta], None]


@pytest.fixture
def sqlite(tmp_path: Path, sqlite_template: bytes) -> Iterator[Store]:
    (tmp_path / "attune.sqlite3").write_bytes(sqlite_template)
    store = open_store(f"sqlite:///{tmp_path / 'attune.sqlite3'}")
    yield store
    store.close()


@pytest.fixture
def set_wall_clock(monkeypatch: pytest.MonkeyPatch) -> SetClock:
    """Set the wall clock that the store reads forward or back."""

    def _set(by: timedelta) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                return datetime.now(tz) + by

        monkeypatch.setattr("service.store.database.datetime", Clock)

    return _set


def held_job(store: Store, spec: JobSpec, lease_seconds: float) -> str:
    job = jobs.create(store, project_id=DEFAULT_PROJECT_ID, spec=spec)
    assert leases.claim(store, job.id, "worker", lease_seconds) is not None
    return job.id


def held_dataset(store: Store, lease_seconds: float) -> str:
    made = datasets.create(store, project_id=DEFAULT_PROJECT_ID, filename="pairs.parquet")
    datasets.uploaded(store, made.id, size_bytes=1, sha256="1" * 64, object_key="key")
    assert datasets.claim(store, made.id, "worker", lease_seconds) is not None
    return made.id


def lost(store: Store) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What a sweep takes from workers: jobs, and data sets."""
    of_jobs = leases.requeue_lost(store, max_attempts=3).requeued
    return of_jobs, datasets.sweep(store, max_attempts=3, upload_timeout_seconds=10**9)


@pytest.mark.parametrize("hours", [2, -2])
def test_a_jump_of_the_wall_clock_takes_nothing_from_a_worker_that_lives(
    sqlite: Store, spec: JobSpec, set_wall_clock: SetClock, hours: int
) -> None:
    job_id, dataset_id = held_job(sqlite, spec, 60), held_dataset(sqlite, 60)
    set_wall_clock(timedelta(hours=hours))
    assert lost(sqlite) == ((), ())
    assert datasets.claim(sqlite, dataset_id, "second", 60) is None
    assert leases.renew(sqlite, job_id, 1, 60) == "go_on"
    set_wall_clock(timedelta(hours=-hours))
    assert lost(sqlite) == ((), ())


@pytest.mark.parametrize("hours", [2, -2])
def test_a_jump_of_the_wall_clock_keeps_nothing_with_a_worker_that_is_lost(
    sqlite: Store, spec: JobSpec, set_wall_clock: SetClock, hours: int
) -> None:
    job_id, dataset_id = held_job(sqlite, spec, 0.05), held_dataset(sqlite, 0.05)
    set_wall_clock(timedelta(hours=hours))
    time.sleep(0.1)
    assert lost(sqlite) == ((job_id,), (dataset_id,))


@pytest.mark.parametrize("hours", [0, 2, -2])
def test_no_lease_outlives_a_restart_of_the_host(
    sqlite: Store,
    spec: JobSpec,
    set_wall_clock: SetClock,
    hours: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id, dataset_id = held_job(sqlite, spec, 3600), held_dataset(sqlite, 3600)
    (tmp_path / "boot_id").write_text("the-next-start\n")
    monkeypatch.setattr("service.store.lease_clock.BOOT_ID", tmp_path / "boot_id")
    monkeypatch.setattr("service.store.lease_clock.time", time_since_start())
    set_wall_clock(timedelta(hours=hours))
    lost(sqlite)  # the clock of this start begins at the end of the last lease
    time.sleep(0.01)
    lost(sqlite)
    assert leases.claim(sqlite, job_id, "second", 60) is not None
    assert datasets.claim(sqlite, dataset_id, "second", 60) is not None


def time_since_start() -> ModuleType:
    """The module `time` with a monotonic clock that read zero just now."""
    started, module = time.monotonic(), ModuleType("time")
    module.monotonic = lambda: time.monotonic() - started  # type: ignore[attr-defined]
    return module
