"""What a worker does beside the jobs, under a lease: the check of a data set, an export, a push, and the process of each."""

import contextlib
import os
import signal as signals
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import structlog

from alignment_core.errors import AlignmentError
from service.store.fence import Fenced
from service.store.records.base import JobError
from worker.heartbeat import Heartbeat, Signal
from worker.parts import WorkerParts
from worker.traces import Errand, ErrandEnded

log = structlog.get_logger()


@dataclass(frozen=True)
class AtWork:
    """An errand that this worker holds. `parts` hear what its heartbeat hears; `told` takes how it ended."""

    parts: WorkerParts
    heartbeat: Heartbeat
    told: ErrandEnded


@contextlib.contextmanager
def at_work(parts: WorkerParts, errand: Errand, renew: Callable[[], bool]) -> Iterator[AtWork]:
    """Keep the lease of an errand while it is done; that it was another's by then is logged, and no error.

    `renew` extends the lease, and says whether it is still held.
    """
    settings = parts.settings

    def renewed() -> Signal:
        return "go_on" if renew() else "lost"

    bound = structlog.contextvars.bound_contextvars(**{f"{errand.of}_id": errand.id}, attempt=errand.attempt)
    with bound, parts.traces.errand(errand) as told:
        try:
            with Heartbeat(
                renewed,
                lambda: "go_on",
                lease_seconds=settings.lease_seconds,
                heartbeat_seconds=settings.heartbeat_seconds,
                poll_seconds=settings.poll_seconds,
                shutting_down=parts.shutting_down,
            ) as heartbeat:
                yield AtWork(replace(parts, asked=lambda: heartbeat.signal), heartbeat, told)
        except Fenced:
            log.warning(f"{errand.of}_lost")


@contextlib.contextmanager
def watched(process: subprocess.Popen[bytes], heartbeat: Heartbeat, max_seconds: float) -> Iterator[threading.Event]:
    """Around hearing what a process says, until it has ended: a signal kills it, and so does the time, which sets the event.

    So does an error of who hears it: nobody waits for its end then.
    """
    late = threading.Event()
    timer = threading.Timer(max_seconds, lambda: (late.set(), _kill(process)))
    with process:
        heartbeat.listen(lambda _: _kill(process))
        timer.start()
        try:
            yield late
            process.wait()
        except BaseException:
            _kill(process)
            raise
        finally:
            timer.cancel()
            heartbeat.listen(lambda _: None)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:  # once that is known its number may be another's
        with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
            os.killpg(process.pid, signals.SIGKILL)


def error_of(error: AlignmentError) -> JobError:
    """Why it came to nothing, as the row has it."""
    return JobError(
        code=error.code, message=error.message, category=error.category, retryable=error.retryable, hint=error.hint
    )
