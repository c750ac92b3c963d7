"""The command line as a process of its own for every call, without the second that Python takes to import it."""

import atexit
import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

SERVER = Path(__file__).with_name("command_server.py")


def run_attune(*arguments: str, cwd: Path | None = None, timeout_seconds: int = 60) -> subprocess.CompletedProcess[str]:
    """What `subprocess.run([sys.executable, "-m", "attune", *arguments], capture_output=True, text=True)` gives."""
    with (
        tempfile.NamedTemporaryFile() as stdout,
        tempfile.NamedTemporaryFile() as stderr,
        socket.socket(socket.AF_UNIX) as connection,
    ):
        asked = {
            "arguments": arguments,
            "cwd": None if cwd is None else str(cwd),
            "environment": dict(os.environ),
            "stdout": stdout.name,
            "stderr": stderr.name,
            "timeout_seconds": timeout_seconds,
        }
        connection.connect(_server())
        connection.sendall(json.dumps(asked).encode() + b"\n")
        status = connection.recv(16)
        command = [sys.executable, "-m", "attune", *arguments]
        return subprocess.CompletedProcess(command, int(status), stdout.read().decode(), stderr.read().decode())


@functools.cache
def _server() -> str:
    """Socket of the server that forks them; it ends with this process."""
    folder = tempfile.TemporaryDirectory(prefix="attune-command-")
    path = f"{folder.name}/socket"
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}  # rich would keep it for all
    command = [sys.executable, str(SERVER), path]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"

    def stop() -> None:
        process.communicate()
        folder.cleanup()

    atexit.register(stop)
    return path
