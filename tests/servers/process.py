"""Child processes that end with the test session, even when the session itself is killed."""

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def accepts_connections(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition: Callable[[], bool], what: str, timeout_seconds: float = 60) -> None:
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not happen within {timeout_seconds:g} s")
        time.sleep(0.02)


@contextlib.contextmanager
def if_we_die(command: str, *arguments: str | Path) -> Iterator[None]:
    """Run a shell command should this process end without leaving the context: a shell waits on our pipe for goodbye."""
    guard = subprocess.Popen(
        ["sh", "-c", f"read goodbye || {{ {command}; }}", "sh", *map(str, arguments)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield
    finally:
        guard.communicate(b"goodbye\n")


@contextlib.contextmanager
def folder(name: str) -> Iterator[Path]:
    """A short-named temporary folder: unix socket paths end at 107 bytes, and pytest's folders are closed to other users."""
    path = Path(tempfile.mkdtemp(prefix=f"attune-{name}-"))
    with if_we_die('sleep 2; rm -rf "$1"', path):
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def running(
    arguments: Sequence[str | Path], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process whose output goes to `log`; terminated on leaving, killed when that takes more than ten seconds."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})},
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_until_serving(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Return once the port answers; an early exit raises with the end of the log."""

    def serves() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args} exited with {process.returncode}: {log.read_text()[-2000:]}")
        return accepts_connections(port)

    wait_until(serves, f"port {port} answering")


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
