"""One training process: started, watched and stopped, with nothing left behind.

Between it and the worker stands a guard (`worker.guard`), whose stdin brings it beats: until when the training may run. The
guard ends everything that descends from the training when that time comes, when it is told to, and when the training has
ended. The training's stdout is a stream of events, one JSON object a line (`alignment_core.events`); its stderr is its log.
"""

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil
from pydantic import ValidationError

from alignment_core.events import Event, event_from_json

MAX_LINE_BYTES = 64 * 2**20  # an evaluation report of 100,000 images fits; a runaway line does not eat the memory
MAX_LOG_BYTES = 16 * 2**20  # of the log file, before it is moved to `.1`
TAIL_LINES = 40
CHUNK_BYTES = 2**16
DRAIN_SECONDS = 1.0  # after the process ended, for what a child of it still holds open
EXIT_SECONDS = 10.0  # after the process closed its stdout, or was killed, for the exit itself


class LineBuffer:
    """Bytes in, whole lines out; a line longer than `limit` bytes is cut there and its rest dropped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pending = bytearray()
        self._dropping = False

    def feed(self, chunk: bytes) -> list[bytes]:
        lines = []
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            self._extend(part)
            lines.append(bytes(self._pending))
            self._pending.clear()
            self._dropping = False
        self._extend(rest)
        return lines

    def flush(self) -> list[bytes]:
        """The last line, when it had no newline."""
        lines = [bytes(self._pending)] if self._pending else []
        self._pending.clear()
        return lines

    def _extend(self, part: bytes) -> None:
        if not self._dropping:
            self._pending += part[: self._limit - len(self._pending)]
            self._dropping = len(self._pending) >= self._limit


class ProcessLog:
    """A log file of bounded size, and its last lines in memory for the message of a failure."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._file = path.open("ab", buffering=0)  # what a buffer holds back would be written again at every turn
        self._lock = threading.Lock()

    def write(self, line: bytes) -> None:
        with self._lock:
            if self._file.closed:
                return
            self._tail.append(line.decode(errors="replace")[:2000])
            with contextlib.suppress(OSError):  # a full disk costs lines of the log, and not the run
                self._write(line)

    def _write(self, line: bytes) -> None:
        if self._file.tell() + len(line) > MAX_LOG_BYTES:
            self._file.close()
            self.path.replace(self.path.with_suffix(self.path.suffix + ".1"))
            self._file = self.path.open("ab", buffering=0)
        self._file.write(line + b"\n")

    def tail(self, num_lines: int = TAIL_LINES) -> str:
        """The last lines, at most `TAIL_LINES`, as one text."""
        with self._lock:
            return "\n".join(list(self._tail)[-num_lines:])

    def read_end(self, num_bytes: int) -> str:
        """The end of what was written, at most `num_bytes` of it."""
        with self.path.open("rb") as file:
            file.seek(max(0, self.path.stat().st_size - num_bytes))
            return file.read(num_bytes).decode(errors="replace")

    @property
    def is_closed(self) -> bool:
        return self._file.closed

    def close(self) -> None:
        with self._lock:
            self._file.close()


def events_of(lines: Iterable[bytes], log: ProcessLog) -> list[Event]:
    """The events among the lines; what is none goes to the log."""
    found = []
    for line in lines:
        try:
            found.append(event_from_json(line))
        except ValidationError:
            if line.strip():
                log.write(b"stdout: " + line)
    return found


def guarded(
    command: Sequence[str], *, until: float, cwd: Path | str, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    """The guard of a command that it has started; it ends all of it when the host's clock reads `until`."""
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "worker.guard", repr(until), *command],
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


class TrainingProcess:
    """A running training process; leave its `with` block and neither it nor any child of it is left.

    It may run until the time that its guard was told first (`guarded`), or that the last `beat` said. `batches` reads
    its events and has to be consumed, or the process waits on a full pipe. `beat`, `stop` and `kill` may be called from any
    thread. `stop_requested` and `kill_requested` tell our doing from what befell the process.
    """

    def __init__(self, guard: subprocess.Popen[bytes], *, log_path: Path, grace_seconds: float) -> None:
        self.log = ProcessLog(log_path)
        self.stop_requested = False
        self.kill_requested = False
        self._grace_seconds = grace_seconds
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._ended = False
        self._popen = guard
        os.set_blocking(_pipe(self._popen.stdin).fileno(), False)
        self._stderr_reader = threading.Thread(target=self._copy_stderr, name="trainer-stderr", daemon=True)
        self._stderr_reader.start()

    @property
    def pid(self) -> int:
        """The guard's: everything that trains descends from it."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """What `subprocess` calls the return code, minus N for signal N; None inside the `with` block while it runs."""
        return self._popen.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def batches(self, every_seconds: float) -> Iterator[list[Event]]:
        """The events since the last batch, at least every `every_seconds` (an empty list if none), until it has ended.

        Lines that are no event go to the log. When the iterator ends the process has exited and `exit_code` is set.
        """
        stream, lines = _pipe(self._popen.stdout), LineBuffer(MAX_LINE_BYTES)
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            is_open, deadline = True, float("inf")
            while is_open and time.monotonic() < deadline:
                found, is_open = self._read_for(every_seconds, selector, stream, lines)
                yield found
                if deadline == float("inf") and self._has_exited():
                    deadline = time.monotonic() + DRAIN_SECONDS
        yield events_of(lines.flush(), self.log)
        self._wait_for_exit()
        self.close()

    def beat(self, until: float) -> None:
        """Say until when it may run: a reading of the host's clock, so that no delay on the way can lengthen it."""
        with self._lock, contextlib.suppress(BrokenPipeError, BlockingIOError):  # it has ended, or does not listen
            if not self._ended:
                os.write(_pipe(self._popen.stdin).fileno(), f"{until!r}\n".encode())

    def stop(self) -> None:
        """Ask it to save and leave; kill it when it has not left after the grace time."""
        with self._lock:
            if self.stop_requested or self._ended:
                return
            self.stop_requested = True
            os.kill(self.pid, signal.SIGTERM)  # not reaped yet: its id cannot be anyone else's
            self._timer = threading.Timer(self._grace_seconds, self.kill)
            self._timer.daemon = True
            self._timer.start()

    def kill(self) -> None:
        """End it and all its descendants now."""
        with self._lock:
            if not self._ended:
                self.kill_requested = True
                os.kill(self.pid, signal.SIGUSR1)

    def close(self) -> None:
        """Wait for the exit, or force it when it was not asked to leave; nothing of it is left then."""
        if self._ended:
            return
        if not self._has_exited() and not self.stop_requested:
            self.kill()
        self._wait_for_last_exit()
        with self._lock:
            self._ended = True
        self._popen.wait()
        if self._timer is not None:
            self._timer.cancel()
        self._stderr_reader.join(timeout=DRAIN_SECONDS)
        for stream in (self._popen.stdin, self._popen.stdout):
            _pipe(stream).close()
        if not self._stderr_reader.is_alive():  # else a process that left the tree holds it, and the thread reads it
            _pipe(self._popen.stderr).close()
        self.log.close()

    def _wait_for_last_exit(self) -> None:
        """Until the guard has ended; one that was told to kill and does not is stopped itself, and is not waited for."""
        told_at: float | None = None
        while not self._has_exited():
            told_at = told_at or (time.monotonic() if self.kill_requested else None)
            if told_at is not None and time.monotonic() - told_at > EXIT_SECONDS:
                return _kill_tree(self.pid)
            time.sleep(0.01)

    def _wait_for_exit(self) -> None:
        deadline = time.monotonic() + EXIT_SECONDS
        while not self._has_exited() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _has_exited(self) -> bool:
        return self._ended or os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None

    def _read_for(
        self, seconds: float, selector: selectors.BaseSelector, stream: IO[bytes], lines: LineBuffer
    ) -> tuple[list[Event], bool]:
        """Events that arrive within `seconds`, and whether the stream is still open."""
        found: list[Event] = []
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and selector.select(left):
            chunk = os.read(stream.fileno(), CHUNK_BYTES)
            if not chunk:
                return found, False
            found += events_of(lines.feed(chunk), self.log)
        return found, True

    def _copy_stderr(self) -> None:
        stream, lines = _pipe(self._popen.stderr), LineBuffer(CHUNK_BYTES)
        while chunk := os.read(stream.fileno(), CHUNK_BYTES):
            for line in lines.feed(chunk):
                self.log.write(line)
        for line in lines.flush():
            self.log.write(line)


def _kill_tree(pid: int) -> None:
    """Kill a process and all its descendants, the leaves last, so that none is adopted elsewhere before its turn."""
    guard = psutil.Process(pid)
    for process in [*guard.children(recursive=True), guard]:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "the process was started with three pipes"
    return stream
