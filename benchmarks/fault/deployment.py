"""A deployment whose every process a fault can reach: the API, two workers with a machine each, and what they lean on.

On the embedded parts (SQLite, a directory, a broker on a unix socket), or on PostgreSQL, an S3 server and Redis. Relays stand in front of the
object store, and between the first worker and PostgreSQL.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import psutil

from attune import valkey
from attune.client import Client
from attune.local_server import PYTHON, WORKER
from attune.processes import LocalProcess
from benchmarks.fault.relay import Relay
from demo.assets import ASSETS
from service.store.database import Store, open_store
from service.store.migrations import migrate
from tests.servers.process import folder, free_port, wait_until

PartsName = Literal["embedded", "full"]
WORKERS = ("one", "two")
DISK_BYTES = 256 * 2**20

SETTINGS = {
    "LEASE_SECONDS": "6",
    "HEARTBEAT_SECONDS": "1.5",
    "POLL_SECONDS": "0.3",
    "SWEEP_EVERY_SECONDS": "0.5",
    "CANCEL_GRACE_SECONDS": "10",
    "STORAGE_PATIENCE_SECONDS": "12",
    "WARM_TRAINER": "false",
    "CATALOG_PATH": str(ASSETS / "catalog.json"),
}


@dataclass
class Broker:
    """Valkey or Redis, which loses all that it had when it is killed."""

    command: list[str]
    folder: Path
    answers: Callable[[], bool]
    log_path: Path
    process: LocalProcess | None = None

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.process = LocalProcess("broker", self.command, log_path=self.log_path, env=os.environ)
        wait_until(self.answers, "the broker answering")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)
        shutil.rmtree(self.folder)


@dataclass
class Deployment:
    """`store` is the database as a bystander reads it: past every relay."""

    parts: PartsName
    root: Path
    settings: dict[str, str]
    broker: Broker
    store: Store
    objects: Relay | None = None
    database: Relay | None = None
    postgres: Any = None
    disks: dict[str, Path] = field(default_factory=dict)
    workers: dict[str, LocalProcess] = field(default_factory=dict)
    api: LocalProcess | None = None
    port: int = field(default_factory=free_port)
    _started: int = 0

    @property
    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.port}")

    def start_api(self) -> None:
        command = ("uvicorn", "--factory", "service.main:app", "--port", str(self.port), "--no-access-log")
        self.api = self._start("api", [*PYTHON, *command, "--timeout-graceful-shutdown", "2"], {})
        with self.client as client:
            wait_until(client.is_ready, "the API being ready", 120)

    def start_worker(self, name: str, **variables: str) -> None:
        """A worker with a machine of its own; `variables` are the environment's, as they are."""
        machine = {
            "CACHE_DIR": str(self.root / name / "cache"),
            "WORK_DIR": str(self.disks.get("work", self.root) / name),
        }
        if name == "one" and self.database is not None:
            url = urlsplit(self.settings["DATABASE_URL"])
            machine["DATABASE_URL"] = f"postgresql+psycopg://postgres@127.0.0.1:{self.database.port}{url.path}"
        command = [*WORKER, "--queues", "celery,attune.datasets", "--hostname", f"{name}@%h"]
        process = self._start(name, command, machine, variables)
        wait_until(lambda: " ready." in process.log_path.read_text(errors="replace"), f"worker {name} being ready", 120)
        self.workers[name] = process

    def heal(self) -> None:
        """Whatever the last fault left: every part is there again."""
        for relay in (self.objects, self.database):
            if relay is not None:
                relay.mode = "pass"
        for disk in self.disks.values():
            (disk / "filler").unlink(missing_ok=True)
        if self.api is None or not self.api.is_running:
            self.start_api()
        for name in WORKERS:
            if name not in self.workers or not self.workers[name].is_running:
                self.start_worker(name)

    def holder(self, job_id: str) -> str:
        """The name of the worker that holds the job."""
        import sqlalchemy as sa

        from service.store.models import Job

        with self.store.read() as session:
            worker_id = session.scalar(sa.select(Job.worker_id).where(Job.id == job_id))
        pid = int((worker_id or ":0").rpartition(":")[2])
        return next(name for name, process in self.workers.items() if process.pid == pid)

    def forget_caches(self) -> None:
        for name in WORKERS:
            shutil.rmtree(self.root / name / "cache", ignore_errors=True)

    def kill_database(self) -> None:
        """As when the machine of PostgreSQL loses its power, but for the disk."""
        postmaster = psutil.Process(self.postgres.get_postmaster_info().pid)
        backends = postmaster.children(recursive=True)
        for process in (postmaster, *backends):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs([postmaster, *backends], 10)

    def stop(self) -> None:
        for process in [*self.workers.values(), self.api]:
            if process is not None:
                process.ask_to_stop()
        for process in [*self.workers.values(), self.api, self.broker.process]:
            if process is not None:
                process.wait(15)
        self.store.close()

    def _start(
        self, name: str, command: list[str], settings: dict[str, str], variables: dict[str, str] | None = None
    ) -> LocalProcess:
        self._started += 1
        prefixed = {f"ATTUNE_{key}": value for key, value in {**SETTINGS, **self.settings, **settings}.items()}
        environment = os.environ | prefixed | {"OMP_NUM_THREADS": "1"} | (variables or {})
        return LocalProcess(name, command, log_path=self.root / f"{name}-{self._started}.log", env=environment)


@contextmanager
def deployed(parts: PartsName) -> Iterator[Deployment]:
    """API and workers that run, and what they lean on."""
    with ExitStack() as stack:
        root = stack.enter_context(folder(f"faults-{parts}"))
        deployment = _embedded(root, stack) if parts == "embedded" else _full(root, stack)
        stack.callback(deployment.stop)
        deployment.broker.start()
        deployment.heal()
        yield deployment


def _embedded(root: Path, stack: ExitStack) -> Deployment:
    data = root / "data"
    data.mkdir()
    disks = _disks({"work": root / "work", "objects": data / "objects"}, stack)
    path = valkey.socket_path(data)
    command = valkey.server_command(valkey.find_server(), data, path)
    broker = Broker(command, data / "broker", lambda: valkey.answers(path), root / "broker.log")
    url = f"sqlite:///{data}/attune.db"
    migrate(url)
    settings = {"DATA_DIR": str(data), "BROKER_URL": valkey.broker_url(path), "DATABASE_URL": url}
    return Deployment("embedded", root, settings, broker, open_store(url), disks=disks)


def _full(root: Path, stack: ExitStack) -> Deployment:
    from tests.servers.postgres import get_server
    from tests.servers.process import accepts_connections
    from tests.servers.redis import server_program
    from tests.servers.swift import swift

    home = stack.enter_context(folder("pg"))
    postgres = get_server(home / "data", cleanup_mode="stop")
    stack.callback(postgres.cleanup)
    postgres.psql("CREATE DATABASE attune")
    socket_folder = postgres.get_postmaster_info().socket_dir
    url = f"postgresql+psycopg://postgres@/attune?host={socket_folder}"
    migrate(url)
    s3 = stack.enter_context(swift())
    objects = Relay(("127.0.0.1", urlsplit(s3.endpoint_url).port or 80))
    port = free_port()
    options = ("--bind", "127.0.0.1", "--port", str(port), "--dir", str(root / "broker"), "--appendonly", "yes")
    command = [str(server_program()), *options, "--save", ""]
    broker = Broker(command, root / "broker", lambda: accepts_connections(port), root / "broker.log")
    settings = {
        "DATA_DIR": str(root),
        "DATABASE_URL": url,
        "BROKER_URL": f"redis://127.0.0.1:{port}/0",
        "OBJECT_STORE": "s3",
        "S3_ENDPOINT_URL": f"http://127.0.0.1:{objects.port}",
        "S3_BUCKET": s3.make_bucket(),
        "S3_REGION": s3.region,
        "S3_ACCESS_KEY_ID": s3.access_key_id,
        "S3_SECRET_ACCESS_KEY": s3.secret_access_key,
        "S3_ADDRESSING_STYLE": "path",
    }
    database = Relay(f"{socket_folder}/.s.PGSQL.5432")
    disks = _disks({"work": root / "work"}, stack)
    return Deployment("full", root, settings, broker, open_store(url), objects, database, postgres, disks)


def _disks(paths: dict[str, Path], stack: ExitStack) -> dict[str, Path]:
    """File systems that can be filled; none where this user may not mount one."""
    mounted = {}
    for name, path in paths.items():
        path.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(path)]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            stack.callback(subprocess.run, ["umount", "--lazy", str(path)], check=False)
            mounted[name] = path
    return mounted


def fill(disk: Path) -> None:
    """Until nothing more fits."""
    with (disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**20))
    with (disk / "filler").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**10))


@contextmanager
def frozen(processes: list[psutil.Process], seconds: float) -> Iterator[None]:
    """All of them stand still for so long."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP)
    try:
        time.sleep(seconds)
        yield
    finally:
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)
