"""What a run needs of its surroundings may be away for a while: try again, for a time, before anything is given up.

A database is waited for as long as the lease would last (`patiently`), since afterwards the job is another worker's. A
store that is full, read-only or silent, or a disk of this machine, is waited for longer (`wait_out`); what then is still
away pauses the job, and never fails it.
"""

import time
from collections.abc import Callable
from typing import TypeVar, assert_never

import structlog
from sqlalchemy.exc import DBAPIError, OperationalError

from alignment_core.errors import DISK_UNAVAILABLE
from alignment_core.events import RunFailed
from service.settings import Settings
from service.store.records.base import JobError
from service.store.unavailable import ERRNO_REASONS, WORDS, ObjectsUnavailable, Reason, reason_of_database
from worker.heartbeat import Signal

T = TypeVar("T")

PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0

log = structlog.get_logger()


class Away(Exception):  # noqa: N818 - a state of affairs, read as one
    """Something that the run needs is away, and was waited for in vain; `error` is what the paused job will say."""

    def __init__(self, error: JobError, *, part: str, reason: Reason) -> None:
        super().__init__(error.message)
        self.error = error
        self.part = part
        self.reason: Reason = reason


class TrainerWithoutDisk(Exception):  # noqa: N818
    """The training process ended because a disk was full, read-only or broken: its work folder's, as a rule."""

    def __init__(self, failure: RunFailed) -> None:
        super().__init__(failure.message)
        self.failure = failure


def patiently(write: Callable[[], T], patience_seconds: float) -> T:
    """The result of `write`, tried again while what it writes to cannot be reached; then the error is raised.

    A try that failed must have changed nothing: `write` is one transaction, or one object.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return write()
        except (OperationalError, ObjectsUnavailable) as error:
            if time.monotonic() + PAUSE_SECONDS > deadline:
                raise
            log.warning("store_unreachable", error=type(error).__name__)
        time.sleep(PAUSE_SECONDS)


def wait_out(
    use: Callable[[], T],
    settings: Settings,
    asked: Callable[[], Signal],
    waited: Callable[[float], None] = lambda _: None,
) -> T:
    """The result of `use`, tried again while a store or a disk is away, with growing pauses; then raises `Away`.

    `asked` is looked at before each pause: nobody waits for a store in a job that was cancelled. `waited` is told the seconds of the pauses
    once there is a result.
    """
    began, pause, paused = time.monotonic(), PAUSE_SECONDS, 0.0
    while True:
        tried = time.monotonic()
        try:
            found = use()
            if paused:
                waited(paused)
            return found
        except (ObjectsUnavailable, OSError, TrainerWithoutDisk) as error:
            away = away_of(error)
            if away is None:
                raise
            if time.monotonic() - tried > settings.storage_patience_seconds:  # it had worked for long, and may again
                began, pause = time.monotonic(), PAUSE_SECONDS
            log.warning("waiting_for_storage", part=away.part, reason=away.reason, error=str(error))
            slept = time.monotonic()
            if not _sleep(pause, began, settings, asked):
                raise away from error
            paused += time.monotonic() - slept
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def away_of(error: BaseException) -> Away | None:
    """What is away, if that is what the error means; None for every other error."""
    match error:
        case Away():
            return error
        case ObjectsUnavailable():
            return _away("object store", error.reason)
        case DBAPIError() if isinstance(error, OperationalError) or reason_of_database(error.orig) == "read_only":
            return _away("database", reason_of_database(error.orig))
        case OSError() if (reason := ERRNO_REASONS.get(error.errno or 0)) is not None:
            return _away("worker's disk", reason)
        case TrainerWithoutDisk(failure=failure):
            fields = failure.model_dump(include={"code", "message", "category", "retryable", "hint"})
            return Away(JobError.model_validate(fields), part="worker's disk", reason="full")
        case _:
            return None


def is_without_disk(event: object) -> bool:
    """Whether a training process says that it failed for want of a disk."""
    return isinstance(event, RunFailed) and event.code == DISK_UNAVAILABLE


def _away(part: str, reason: Reason) -> Away:
    error = JobError(
        code=f"{part.replace(chr(39) + 's', '').replace(' ', '_')}_{reason}",
        message=f"the {part} {WORDS[reason]}",
        category="capacity",
        retryable=True,
        hint="Nothing is wrong with the job: it goes on from its last checkpoint when it is resumed.",
    )
    return Away(error, part=part, reason=reason)


def _sleep(seconds: float, began: float, settings: Settings, asked: Callable[[], Signal]) -> bool:
    """Sleep, unless waiting must end before; False then. A new request ends the sleep."""
    signal, until = asked(), time.monotonic() + seconds
    if until > began + _allowed_seconds(settings, signal):
        return False
    while (left := until - time.monotonic()) > 0 and asked() == signal:
        time.sleep(min(left, 0.1))
    return True


def _allowed_seconds(settings: Settings, signal: Signal) -> float:
    match signal:
        case "go_on":
            return settings.storage_patience_seconds
        case "pause" | "shutdown":  # what was saved last is worth a moment
            return min(settings.storage_patience_seconds, settings.cancel_grace_seconds)
        case "cancel" | "discard" | "lost":
            return 0.0
        case _:
            assert_never(signal)
