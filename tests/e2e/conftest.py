"""Deployments to run the scenario on: the embedded parts, and real servers. Every process is a real one."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from attune import valkey
from attune.client import Client
from attune.local_server import PYTHON, WORKER
from attune.processes import LocalProcess
from service.store.migrations import migrate
from tests.servers.process import folder, free_port, wait_until

ASSETS = Path(__file__).parents[2] / "demo" / "assets"

PATIENCE = {
    "LEASE_SECONDS": "4",
    "HEARTBEAT_SECONDS": "1",
    "POLL_SECONDS": "0.3",
    "SWEEP_EVERY_SECONDS": "0.5",
    "RING_AGAIN_SECONDS": "2",
    "CANCEL_GRACE_SECONDS": "30",
    "CATALOG_PATH": str(ASSETS / "catalog.json"),
}


@dataclass
class Deployment:
    """A running API, and workers that a test starts and kills. `settings` are `ATTUNE_` variables without the prefix."""

    root: Path
    settings: dict[str, str]
    processes: list[LocalProcess] = field(default_factory=list)
    port: int = field(default_factory=free_port)

    @property
    def client(self) -> Client:
        return Client(f"http://127.0.0.1:{self.port}")

    def start_api(self) -> None:
        api = ("uvicorn", "--factory", "service.main:app", "--port", str(self.port), "--timeout-graceful-shutdown", "2")
        process = self.start("api", [*PYTHON, *api], {})
        with self.client as client:
            wait_until(lambda: client.is_ready() or not process.is_running, "the API being ready")
        assert process.is_running, process.log_tail()

    def start_worker(self, name: str) -> LocalProcess:
        """A worker with a machine of its own: only the database, the broker and the objects are shared."""
        machine = {"CACHE_DIR": str(self.root / name / "cache"), "WORK_DIR": str(self.root / name / "work")}
        command = [*WORKER, "--queues", "celery,attune.datasets", "--hostname", f"{name}@%h"]
        return self.start(name, command, machine)

    def start(self, name: str, command: list[str], extra: dict[str, str]) -> LocalProcess:
        settings = {f"ATTUNE_{key}": value for key, value in {**PATIENCE, **self.settings, **extra}.items()}
        environment = os.environ | settings | {"OMP_NUM_THREADS": "1"}
        process = LocalProcess(name, command, log_path=self.root / f"{name}.log", env=environment)
        self.processes.append(process)
        return process

    def training_processes(self, job_id: str) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                if any(job_id in word for word in process.cmdline()) and "run" in process.cmdline():
                    found.append(process)
        return found

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.ask_to_stop()
        for process in reversed(self.processes):
            process.wait(20)


@contextlib.contextmanager
def embedded() -> Iterator[dict[str, str]]:
    """SQLite, a directory, and a Valkey server on a unix socket."""
    with folder("embedded") as data_dir:
        path = valkey.socket_path(data_dir)
        command = valkey.server_command(valkey.find_server(), data_dir, path)
        broker = LocalProcess("broker", command, log_path=data_dir / "broker.log", env=os.environ)
        try:
            valkey.wait_for_server(path)
            yield {"DATA_DIR": str(data_dir), "BROKER_URL": valkey.broker_url(path)}
        finally:
            broker.ask_to_stop()
            broker.wait(10)


@contextlib.contextmanager
def real_servers(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """PostgreSQL, an S3 server, Redis over TCP."""
    postgres: Any = request.getfixturevalue("postgres_server")
    s3: Any = request.getfixturevalue("s3_server")
    redis: Any = request.getfixturevalue("redis_server")
    url = postgres.url(postgres.make_database())
    migrate(url)
    with folder("deployed") as data_dir:
        yield {
            "DATA_DIR": str(data_dir),
            "DATABASE_URL": url,
            "BROKER_URL": f"redis://127.0.0.1:{redis.port}/7",
            "OBJECT_STORE": "s3",
            "S3_ENDPOINT_URL": s3.endpoint_url,
            "S3_PUBLIC_ENDPOINT_URL": s3.endpoint_url.replace("127.0.0.1", "localhost"),
            "S3_BUCKET": s3.make_bucket(),
            "S3_REGION": s3.region,
            "S3_ACCESS_KEY_ID": s3.access_key_id,
            "S3_SECRET_ACCESS_KEY": s3.secret_access_key,
            "S3_ADDRESSING_STYLE": "path",
        }


@pytest.fixture(params=["embedded", pytest.param("real servers", marks=pytest.mark.slow)])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Deployment]:
    with embedded() if request.param == "embedded" else real_servers(request) as settings:
        deployed = Deployment(tmp_path, settings)
        try:
            deployed.start_api()
            yield deployed
        finally:
            deployed.stop()


@pytest.fixture(scope="session")
def run_alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Runs a spec file without any server; returns the work folder."""
    import subprocess

    def run(spec: Path) -> Path:
        workdir = tmp_path_factory.mktemp("alone")
        arguments = ["run", str(spec), "--workdir", str(workdir), "--cache-dir", str(workdir / "cache")]
        subprocess.run(
            [sys.executable, "-m", "alignment_core", *arguments],
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        return workdir

    return run
