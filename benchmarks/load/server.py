"""One API process on one set of parts, without workers: what is measured is the service alone."""

import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx

from attune import valkey
from attune.local_server import PYTHON
from attune.processes import LocalProcess
from demo.assets import ASSETS
from service.settings import Settings
from service.store.database import Store, open_store
from service.store.migrations import migrate
from tests.servers.process import folder, free_port, wait_until

PartsName = Literal["embedded", "full"]


@dataclass(frozen=True)
class Server:
    parts: PartsName
    url: str
    settings: Settings
    store: Store
    root: Path
    s3: Any = None  # the server itself, for those who go past the service

    def median_seconds(self, ask: Callable[[httpx.Client], httpx.Response], times: int = 30) -> tuple[float, float]:
        """Of a request, and of `/healthz` which does nothing: in turns on a connection that is kept, after one that is not counted."""
        taken: list[float] = []
        empty: list[float] = []
        with httpx.Client(base_url=self.url, timeout=600) as client:
            for _ in range(times + 1):
                taken.append(_seconds(lambda: ask(client)))
                empty.append(_seconds(lambda: client.get("/healthz")))
        return statistics.median(taken[1:]), statistics.median(empty[1:])


def _seconds(ask: Callable[[], httpx.Response]) -> float:
    began = time.perf_counter()
    answer = ask()
    assert answer.is_success, answer.text
    return time.perf_counter() - began


@contextmanager
def serving(parts: PartsName) -> Iterator[Server]:
    with ExitStack() as stack:
        root = stack.enter_context(folder(f"load-{parts}"))
        path = valkey.socket_path(root)
        broker = LocalProcess(
            "broker",
            valkey.server_command(valkey.find_server(), root, path),
            log_path=root / "broker.log",
            env=os.environ,
        )
        stack.callback(_end, broker)
        values = {
            "DATA_DIR": str(root),
            "BROKER_URL": valkey.broker_url(path),
            "CATALOG_PATH": str(ASSETS / "catalog.json"),
        }
        s3 = None
        if parts == "full":
            found, s3 = _real_servers(stack)
            values |= found
        settings = Settings.model_validate({name.lower(): value for name, value in values.items()})
        migrate(settings.resolved_database_url)
        port = free_port()
        command = ("uvicorn", "--factory", "service.main:app", "--port", str(port), "--no-access-log")
        environment = os.environ | {f"ATTUNE_{name}": value for name, value in values.items()}
        api = LocalProcess("api", [*PYTHON, *command], log_path=root / "api.log", env=environment)
        stack.callback(_end, api)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: _answers(url), "the API answering", 120)
        store = open_store(settings.resolved_database_url)
        stack.callback(store.close)
        yield Server(parts, url, settings, store, root, s3)


def _real_servers(stack: ExitStack) -> tuple[dict[str, str], Any]:
    from tests.servers.postgres import get_server
    from tests.servers.swift import swift

    home = stack.enter_context(folder("pg"))
    postgres = get_server(home / "data", cleanup_mode="stop")  # as it is made: what is committed is on the disk
    stack.callback(postgres.cleanup)
    postgres.psql("CREATE DATABASE attune")
    s3 = stack.enter_context(swift())
    return {
        "DATABASE_URL": f"postgresql+psycopg://postgres@/attune?host={postgres.get_postmaster_info().socket_dir}",
        "OBJECT_STORE": "s3",
        "S3_ENDPOINT_URL": s3.endpoint_url,
        "S3_BUCKET": s3.make_bucket(),
        "S3_REGION": s3.region,
        "S3_ACCESS_KEY_ID": s3.access_key_id,
        "S3_SECRET_ACCESS_KEY": s3.secret_access_key,
        "S3_ADDRESSING_STYLE": "path",
    }, s3


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz").status_code == 200
    except httpx.TransportError:
        return False


def _end(process: LocalProcess) -> None:
    process.ask_to_stop()
    process.wait(10)
