"""The whole service on this machine: broker, API and workers as processes that end with this one.

`attune up` and `attune demo` use it. It speaks to the parts through their command lines and the environment only, so that
neither FastAPI nor Celery is imported here.
"""

import fcntl
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TextIO

from attune import valkey
from attune.client import Client
from attune.processes import LocalProcess

READY_SECONDS = 60.0
STOP_SECONDS = 45.0  # for a training process that saves its state, and the upload of what it saved
API_STOP_SECONDS = 10.0

# -P: do not import from the folder that the command happens to be typed in
PYTHON = (sys.executable, "-P", "-m")
WORKER = (*PYTHON, "celery", "-A", "worker.app", "worker", "--without-mingle", "--without-gossip", "--loglevel", "INFO")
# a check is a process of its own, and one that takes long must not hold up the others
GPU_FILES = ("nvidia[0-9]*", "dxg", "nvhost-gpu", "kfd")  # Nvidia's driver, the same under WSL and on Jetson; AMD's
QUEUES = {"jobs": ("celery",), "datasets": ("attune.datasets", "--concurrency", "4")}


class ServerError(Exception):
    """The local server could not start, or a part of it ended; says which and where its log is."""


class LocalServer:
    """Everything `attune up` starts. In the `with` block it serves; leaving stops every part, jobs saved first."""

    def __init__(self, *, data_dir: Path, host: str = "127.0.0.1", port: int = 8000, environment: Mapping[str, str]):
        self.data_dir = data_dir.absolute()
        self.host, self.port = host, port or _free_port(host)
        self._environment = environment
        self._processes: list[LocalProcess] = []
        self._lock: TextIO | None = None

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    def __enter__(self) -> "LocalServer":
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def check(self) -> None:
        """Raise `ServerError` when a part has ended by itself."""
        for process in self._processes:
            if not process.is_running:
                raise ServerError(f"{process.name} ended; the end of {process.log_path}:\n{process.log_tail()}")

    def stop(self) -> None:
        """Workers first, so that they save and give back their jobs; the broker last. A signal meanwhile kills the rest."""
        with _signals_call(self._kill):
            self._stop_gently()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()

    def _stop_gently(self) -> None:
        workers = [process for process in self._processes if process.name.startswith("worker")]
        for process in workers:
            process.ask_to_stop()
        for process in workers:
            process.wait(STOP_SECONDS)
        for process in reversed([process for process in self._processes if process not in workers]):
            process.ask_to_stop()
            process.wait(API_STOP_SECONDS)
        self._processes.clear()

    def _start(self) -> None:
        environment = {**self._environment, "ATTUNE_DATA_DIR": str(self.data_dir)}
        if not environment.get("ATTUNE_TRAINER_COMMAND"):  # one of the operator's may train elsewhere
            environment.setdefault("ATTUNE_WORKER_DEVICES", ",".join(_devices()))
        broker = None if environment.get("ATTUNE_BROKER_URL") else valkey.find_server()
        if self.data_dir.is_dir():  # whose it is tells more than a taken port, and a refusal makes no folder
            self._lock = _hold_alone(self.data_dir)
        _refuse_taken_port(self.host, self.port)
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._lock = self._lock or _hold_alone(self.data_dir)
        if broker is not None:
            path = valkey.socket_path(self.data_dir)
            command = valkey.server_command(broker, self.data_dir, path)
            self._run("broker", command, environment)
            valkey.wait_for_server(path)
            environment["ATTUNE_BROKER_URL"] = valkey.broker_url(path)
        api = ("uvicorn", "--factory", "service.main:app", "--host", self.host, "--port", str(self.port))
        self._run("api", [*PYTHON, *api, "--no-access-log", "--timeout-graceful-shutdown", "3"], environment)
        self._wait_until_ready()  # the API has migrated the database by then
        for name, queue in QUEUES.items():
            self._run(f"worker-{name}", [*WORKER, "--queues", *queue, "--hostname", f"{name}@%h"], environment)

    def _run(self, name: str, command: list[str], environment: Mapping[str, str]) -> None:
        log_path = self.data_dir / "logs" / f"{name}.log"
        self._processes.append(LocalProcess(name, command, log_path=log_path, env=environment))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with Client(self.url) as client:
            while not client.is_ready():
                self.check()
                if time.monotonic() > deadline:
                    raise ServerError(f"{self.url} was not ready within {READY_SECONDS:g} seconds")
                time.sleep(0.05)


def demo_assets() -> Path | None:
    """The demo's model, data and catalog, where they are installed; found without importing anything of it."""
    folder = Path(__file__).parent.parent / "demo" / "assets"
    return folder if (folder / "catalog.json").is_file() else None


def _hold_alone(data_dir: Path) -> TextIO:
    """A lock that ends with this process: two servers on one folder would share one broker's socket."""
    lock = (data_dir / "server.lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise ServerError(f"another Attune server uses {data_dir}; stop it, or choose another --data-dir") from None
    return lock


@contextmanager
def _signals_call(action: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM do this in place of ending the process in the middle; only the main thread has signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: action()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _refuse_taken_port(host: str, port: int) -> None:
    _listen_once(host, port)


def _devices() -> list[str]:
    """What this machine can train on, told without torch by the files of its drivers."""
    return ["cpu", *(["cuda"] if any(found for name in GPU_FILES for found in Path("/dev").glob(name)) else [])]


def _free_port(host: str) -> int:
    return _listen_once(host, 0)


def _listen_once(host: str, port: int) -> int:
    """The port that was listened on for a moment; `ServerError` when it cannot be."""
    try:
        socket.getaddrinfo(host, port)
    except socket.gaierror as error:
        raise ServerError(f"--host {host}: {error.strerror}; expected a name or an address of this machine") from error
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.create_server((host, port), family=family) as probe:
            return probe.getsockname()[1]
    except OSError as error:
        reason = str(error.strerror or error).partition(" (while")[0]  # Python adds the address, which is said here
        raise ServerError(
            f"cannot listen on {host}:{port} ({reason}); choose another port (attune up --port N) or another --host"
        ) from error
