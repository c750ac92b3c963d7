"""The faults, each a function that does it to a scene; `FAULTS` is the list of docs/reliability.md."""

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.fault.deployment import SETTINGS, PartsName, fill, frozen
from benchmarks.fault.relay import Mode, Relay
from benchmarks.fault.scene import Moment, Scene
from benchmarks.fault.trainers import guard_of, trainers_of
from tests.servers.process import wait_until

BOTH: tuple[PartsName, ...] = ("embedded", "full")
LEASE_SECONDS = float(SETTINGS["LEASE_SECONDS"])
SHORT_SECONDS = 3.0
PAST_THE_LEASE_SECONDS = 1.5 * LEASE_SECONDS
LONGER_THAN_PATIENCE_SECONDS = float(SETTINGS["STORAGE_PATIENCE_SECONDS"]) + 4
SKEW = "+10m"


class NotHere(Exception):  # noqa: N818 - a state of affairs, read as one
    """This machine cannot show the fault."""


@dataclass(frozen=True)
class Fault:
    """`happen` strikes when the job is at `moment`; without one it submits the job itself."""

    name: str
    happen: Callable[[Scene], None]
    moment: Moment | None = "training"
    parts: tuple[PartsName, ...] = BOTH
    processes: int = 1


# --- workers and what they start ---


def kill_worker(scene: Scene) -> None:
    deployment = scene.deployment
    process = deployment.workers[deployment.holder(scene.job_id)]
    scene.strike()
    os.kill(process.pid, signal.SIGKILL)


def kill_workers_before_the_job(scene: Scene) -> None:
    deployment = scene.deployment
    for process in deployment.workers.values():
        process.kill()
        process.wait(10)
    scene.submit()
    scene.strike()
    deployment.heal()


def kill_training(scene: Scene) -> None:
    trainers = trainers_of(scene.job_id)
    scene.strike()
    for process in trainers[max(trainers)]:
        process.kill()


def kill_rank(scene: Scene) -> None:
    trainers = trainers_of(scene.job_id)
    (rank,) = [one for one in trainers[max(trainers)] if one.environ().get("RANK") == "1"]
    scene.strike()
    rank.kill()


def kill_guard(scene: Scene) -> None:
    guard = guard_of(scene.job_id)
    scene.strike()
    guard.kill()


def stop_worker(scene: Scene) -> None:
    deployment = scene.deployment
    worker = psutil.Process(deployment.workers[deployment.holder(scene.job_id)].pid)
    scene.strike()
    with frozen([worker], PAST_THE_LEASE_SECONDS):
        pass


def freeze_host(scene: Scene) -> None:
    """The worker and all that descends from it stand still past the lease, and go on as if nothing had been."""
    deployment = scene.deployment
    worker = psutil.Process(deployment.workers[deployment.holder(scene.job_id)].pid)
    scene.strike()
    with frozen([worker, *worker.children(recursive=True)], PAST_THE_LEASE_SECONDS):
        pass


def drain_worker(scene: Scene) -> None:
    deployment = scene.deployment
    process = deployment.workers[deployment.holder(scene.job_id)]
    scene.strike()
    process.ask_to_stop()


def exhaust_memory(scene: Scene) -> None:
    """A group of the kernel's with no memory to give: the next page that the training asks for has it killed."""
    (training,) = trainers_of(scene.job_id)[max(trainers_of(scene.job_id))]
    with _memory_group() as group:
        scene.strike()
        (group / "cgroup.procs").write_text(str(training.pid))
        wait_until(lambda: not training.is_running() or training.status() == psutil.STATUS_ZOMBIE, "the kill", 30)


@contextmanager
def _memory_group() -> Iterator[Path]:
    for parent, limit in (("memory", "memory.limit_in_bytes"), ("", "memory.max")):
        group = Path("/sys/fs/cgroup", parent, f"attune-faults-{os.getpid()}")
        with contextlib.suppress(OSError):
            group.mkdir()
            if (group / limit).exists():
                (group / limit).write_text(str(2**20))
                try:
                    yield group
                finally:
                    with contextlib.suppress(OSError):
                        group.rmdir()
                return
            group.rmdir()
    raise NotHere("no memory group can be made here")


def skew_clock(scene: Scene) -> None:
    """A worker whose wall clock is ten minutes ahead takes the job and is killed; the other, with the right time, takes it over."""
    deployment = scene.deployment
    library = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)
    if library is None:
        raise NotHere("libfaketime is not installed")
    for process in deployment.workers.values():
        process.kill()
        process.wait(10)
    deployment.start_worker("two", LD_PRELOAD=str(library), FAKETIME=SKEW, FAKETIME_DONT_FAKE_MONOTONIC="1")
    scene.submit()
    scene.reach("training")
    deployment.start_worker("one")
    time.sleep(SHORT_SECONDS)  # a clock that counted would have ended the lease by now
    kill_worker(scene)


# --- the API and the broker ---


def kill_api(scene: Scene) -> None:
    deployment = scene.deployment
    assert deployment.api is not None
    scene.strike()
    deployment.api.kill()
    deployment.api.wait(10)
    deployment.start_api()


def kill_broker(scene: Scene) -> None:
    scene.strike()
    scene.deployment.broker.kill()
    time.sleep(SHORT_SECONDS)
    scene.deployment.broker.start()


def submit_without_broker(scene: Scene) -> None:
    """The job is taken while there is no broker, which comes back with nothing in it."""
    scene.deployment.broker.kill()
    scene.submit()
    scene.strike()
    time.sleep(SHORT_SECONDS)
    scene.deployment.broker.start()


# --- the database ---


def lock_database(seconds: float) -> Callable[[Scene], None]:
    """Somebody holds SQLite's only write lock."""

    def happen(scene: Scene) -> None:
        path = scene.deployment.settings["DATABASE_URL"].removeprefix("sqlite:///")
        with contextlib.closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            scene.strike()
            time.sleep(seconds)
            connection.execute("ROLLBACK")

    return happen


def kill_database(scene: Scene) -> None:
    scene.strike()
    scene.deployment.kill_database()
    time.sleep(SHORT_SECONDS)
    scene.deployment.postgres.ensure_postgres_running()


def database_of_the_holder(mode: Mode, seconds: float) -> Callable[[Scene], None]:
    """The network between the database and the worker that holds the job, and no other."""

    def happen(scene: Scene) -> None:
        deployment = scene.deployment
        assert deployment.database is not None
        process = deployment.workers["two"]
        process.kill()
        process.wait(10)
        scene.submit()
        scene.reach("training")
        deployment.start_worker("two")
        scene.strike()
        _for_a_while(deployment.database, mode, seconds)

    return happen


# --- objects and disks ---


def objects(mode: Mode, seconds: float) -> Callable[[Scene], None]:
    """What befalls the S3 server, from before a checkpoint is uploaded."""

    def happen(scene: Scene) -> None:
        assert scene.deployment.objects is not None
        scene.strike()
        _for_a_while(scene.deployment.objects, mode, seconds)

    return happen


def _for_a_while(relay: Relay, mode: Mode, seconds: float) -> None:
    relay.mode = mode
    time.sleep(seconds)
    relay.mode = "pass"


def fill_disk(name: str, seconds: float) -> Callable[[Scene], None]:
    def happen(scene: Scene) -> None:
        if name not in scene.deployment.disks:
            raise NotHere("mounting a small disk takes rights that this user does not have")
        disk = scene.deployment.disks[name]
        scene.strike()
        fill(disk)
        time.sleep(seconds)
        (disk / "filler").unlink()

    return happen


FAULTS: tuple[Fault, ...] = (
    Fault("workers killed, job queued", kill_workers_before_the_job, None),
    Fault("worker killed, job claimed", kill_worker, "claimed"),
    Fault("worker killed while caching", kill_worker, "caching"),
    Fault("worker killed while training", kill_worker),
    Fault("worker killed while saving", kill_worker, "saving"),
    Fault("worker killed while evaluating", kill_worker, "evaluating"),
    Fault("worker stopped past its lease, then continued", stop_worker),
    Fault("worker's host frozen past the lease, then continued", freeze_host),
    Fault("worker drained (SIGTERM)", drain_worker),
    Fault("training process killed", kill_training),
    Fault("training process out of memory", exhaust_memory),
    Fault("guard killed", kill_guard),
    Fault("one rank of two killed", kill_rank, processes=2),
    Fault("worker's clock ten minutes ahead, then killed", skew_clock, None, ("embedded",)),
    Fault("API killed and restarted", kill_api),
    Fault("broker killed, restarted empty", kill_broker),
    Fault("job submitted without a broker, which restarts empty", submit_without_broker, None),
    Fault("database locked for 3 s", lock_database(SHORT_SECONDS), parts=("embedded",)),
    Fault("database locked past the lease", lock_database(PAST_THE_LEASE_SECONDS), parts=("embedded",)),
    Fault("PostgreSQL killed, restarted after 3 s", kill_database, parts=("full",)),
    Fault(
        "database cut off from the worker past the lease",
        database_of_the_holder("down", PAST_THE_LEASE_SECONDS),
        None,
        ("full",),
    ),
    Fault(
        "database silent to the worker past the lease",
        database_of_the_holder("stall", PAST_THE_LEASE_SECONDS),
        None,
        ("full",),
    ),
    Fault("S3 server down for 6 s", objects("down", 6.0), parts=("full",)),
    Fault("S3 server down for longer than is waited", objects("down", LONGER_THAN_PATIENCE_SECONDS), parts=("full",)),
    Fault("S3 server answers 500 for 6 s", objects("errors", 6.0), parts=("full",)),
    Fault("S3 server slow (100 kB/s) for 10 s", objects("slow", 10.0), parts=("full",)),
    Fault("uploads cut off after 8 KiB for 6 s", objects("truncate", 6.0), parts=("full",)),
    Fault("object folder full for 6 s", fill_disk("objects", 6.0), parts=("embedded",)),
    Fault("worker's disk full for 6 s", fill_disk("work", 6.0)),
)
