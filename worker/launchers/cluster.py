"""A gang on other machines, run by an engine of others: submitted, followed over a shared folder, and removed.

The worker holds no connection to it. It writes the lease into the folder and reads the stream from there; should the worker or
its host be lost, nobody renews the lease, and the agents end their ranks before another worker may start the job again.
"""

import json
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Protocol, Self

import structlog

from alignment_core.events import Event
from worker.launchers.contract import EXIT_LOST, EXIT_STOPPED, Plan
from worker.launchers.folder import Followed, GangFolder, num_nodes
from worker.process import CHUNK_BYTES, MAX_LINE_BYTES, LineBuffer, ProcessLog, events_of

SETTLE_SECONDS = 10.0  # for what a file system still holds back when the engine says that the gang has ended
GONE_SECONDS = 60.0  # for the engine to remove a gang; its lease ends it in any case

log = structlog.get_logger()


@dataclass(frozen=True)
class Ended:
    """How the engine says that a gang ended: `exit_code` is what it means where rank 0 has not said it."""

    exit_code: int
    reason: str


State = Literal["unknown", "waiting", "running"] | Ended
"""`unknown` when the engine does not answer just now, which changes nothing."""


class Engine(Protocol):
    """Who runs gangs on a cluster. Names are unique to an attempt."""

    @property
    def most_on_a_node(self) -> int: ...

    @property
    def poll_seconds(self) -> float: ...

    def submit(self, plan: Plan, folder: GangFolder, num_nodes: int) -> None:
        """Raises `AlignmentError` where it is refused."""
        ...

    def state(self, job_id: str, attempt: int) -> State: ...

    def remove(self, job_id: str, attempt: int) -> None:
        """End it if it runs, and forget it; does nothing where there is none, and raises nothing."""
        ...

    def attempts(self, job_id: str) -> list[int]:
        """The attempts at the job of which something is there."""
        ...


@dataclass(frozen=True)
class ClusterLauncher:
    engine: Engine

    def start(self, plan: Plan) -> "ClusterGang":
        nodes = num_nodes(plan.processes, self.engine.most_on_a_node)
        folder = _new_folder(plan.workdir)
        folder.create(plan, nodes)
        self.engine.submit(plan, folder, nodes)
        return ClusterGang(self.engine, plan, folder, nodes)

    def end_orphans(self, job_id: str, attempt: int) -> None:
        for other in self.engine.attempts(job_id):
            if other < attempt:  # never a later one: this worker may be the lost one
                log.warning("orphan_ended", job_id=job_id, attempt=other)
                self.engine.remove(job_id, other)


class ClusterGang:
    """See `contract.Gang`. Requests of other threads are noted, and answered by the one that reads `batches`."""

    def __init__(self, engine: Engine, plan: Plan, folder: GangFolder, num_nodes: int) -> None:
        self.log = ProcessLog(plan.log_path)
        self.stop_requested = False
        self.kill_requested = False
        self.exit_code: int | None = None
        self._engine, self._plan, self._folder = engine, plan, folder
        self._until = plan.until
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._timer: threading.Timer | None = None
        self._stream, self._lines = Followed(folder.stream), LineBuffer(MAX_LINE_BYTES)
        self._logs = [(Followed(folder.log(node)), LineBuffer(CHUNK_BYTES)) for node in range(num_nodes)]
        self._has_started = False
        self._state: State = "unknown"
        self._looked_at = -float("inf")
        self._has_told = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def beat(self, until: float) -> None:
        with self._lock:
            self._until = until
            self._write_lease()

    def stop(self) -> None:
        with self._lock:
            if self.stop_requested:
                return
            self.stop_requested = True
            self._write_lease()
            self._timer = threading.Timer(self._plan.grace_seconds, self.kill)
            self._timer.daemon = True
            self._timer.start()
        self._wake.set()

    def kill(self) -> None:
        self.kill_requested = True
        self._wake.set()

    def batches(self, every_seconds: float) -> Iterator[list[Event]]:
        while self.exit_code is None:
            self._wake.wait(every_seconds)
            yield self._read()
            self._look()
        yield self._read()
        self.close()

    def close(self) -> None:
        """End it where it was not asked to leave, and have the engine forget it."""
        if self.log.is_closed:
            return
        if self.exit_code is None and not self.stop_requested:
            self.kill()
        while self.exit_code is None:
            self._wake.wait(0.5)
            self._read()
            self._look()
        if self._timer is not None:
            self._timer.cancel()
        if self._has_told and not self.kill_requested:
            self._wait_until_ended(SETTLE_SECONDS)  # every rank has ended, and the engine is about to notice
        self._remove()
        self._read()
        self.log.close()

    def _write_lease(self) -> None:
        try:
            self._folder.write_lease(self._until, stop=self.stop_requested)
        except OSError as error:  # then the lease ends; the heartbeat must go on all the same
            log.warning("gang_lease_not_written", error=type(error).__name__)

    def _read(self) -> list[Event]:
        """The events since the last look; lines of the logs become lines of this log."""
        for followed, lines in self._logs:
            for line in lines.feed(followed.read()):
                self.log.write(line)
        return [event for line in self._lines.feed(self._stream.read()) for event in self._told(line)]

    def _told(self, line: bytes) -> list[Event]:
        if not line.startswith(b'{"gang"'):
            return events_of([line], self.log)
        told: dict[str, Any] = json.loads(line)
        self._has_started = True
        if told["gang"] == "ended":
            self._has_told, self.exit_code = True, told["exit_code"]
        return []

    def _look(self) -> None:
        """Do what was asked, and ask the engine when it is time or something was asked."""
        is_due = time.monotonic() - self._looked_at > self._engine.poll_seconds
        was_woken = self._wake.is_set()
        self._wake.clear()
        if self.exit_code is not None:
            return
        if self.kill_requested:
            self.exit_code = -signal.SIGKILL
        elif isinstance(self._state, Ended):
            if time.monotonic() - self._looked_at > SETTLE_SECONDS:
                self.exit_code = self._state.exit_code
        elif is_due or was_woken:
            self._looked_at = time.monotonic()
            self._notice(self._engine.state(self._plan.job_id, self._plan.attempt))

    def _notice(self, state: State) -> None:
        if state not in (self._state, "unknown"):
            self._state = state
            self.log.write(f"gang: {state.reason if isinstance(state, Ended) else state}".encode())
        if state == "waiting" and (self._has_started or self.stop_requested):
            self.exit_code = EXIT_STOPPED  # taken away by its engine, or not begun: there is nothing to save

    def _wait_until_ended(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._is_ended():
            time.sleep(min(1.0, self._engine.poll_seconds))

    def _remove(self) -> None:
        """Until nothing of it is left; should the engine not answer so long, the lease ends it."""
        deadline = time.monotonic() + GONE_SECONDS
        self._engine.remove(self._plan.job_id, self._plan.attempt)
        while not self._is_ended() and time.monotonic() < deadline:
            time.sleep(min(1.0, self._engine.poll_seconds))
            self._engine.remove(self._plan.job_id, self._plan.attempt)

    def _is_ended(self) -> bool:
        return isinstance(self._engine.state(self._plan.job_id, self._plan.attempt), Ended)


def _new_folder(workdir: Path) -> GangFolder:
    """One a start: an attempt that waited for a disk starts again."""
    number = len(list(workdir.glob("gang-*"))) + 1
    return GangFolder(workdir / f"gang-{number}")


LOST = Ended(EXIT_LOST, "it is gone, and nobody said why")
