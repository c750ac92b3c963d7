"""Waiting for what a worker does: the check of an upload, an export, a job, an evaluation."""

import time
from collections.abc import Callable
from typing import Protocol, TypeVar

from attune.errors import AttuneError
from attune.resources.base import ResourceError

AGAIN_SECONDS = 1.0
LONG_POLL_SECONDS = 30.0
ENDS = ("ready", "pushed", "failed")


class InWork(Protocol):
    """What a worker makes ready, or fails to."""

    @property
    def status(self) -> str: ...

    @property
    def error(self) -> ResourceError | None: ...


class Ending(Protocol):
    """What ends by itself, however it ends."""

    @property
    def status(self) -> str: ...

    @property
    def is_terminal(self) -> bool: ...


T = TypeVar("T", bound=InWork)
E = TypeVar("E", bound=Ending)


def until_ready(poll: Callable[[float], T], what_is: str, timeout_seconds: float) -> T:
    """What `poll` answers once it is ready; `AttuneError` with its error when it failed, `TimeoutError` when neither.

    `poll` is told how many seconds the server may wait with its answer; `what_is` begins the sentence of the error.
    """
    deadline = time.monotonic() + timeout_seconds
    while (found := poll(_until(deadline))).status not in ENDS:
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what_is} still {found.status} after {timeout_seconds:g} seconds")
    if found.error is not None:
        raise AttuneError({"code": found.error.code, "detail": found.error.message})
    return found


def until_ended(poll: Callable[[float], E], what_is: str, timeout_seconds: float | None) -> E:
    """What `poll` answers once it has ended; `TimeoutError` when it has not within `timeout_seconds`."""
    deadline = float("inf") if timeout_seconds is None else time.monotonic() + timeout_seconds
    while not (found := poll(_until(deadline))).is_terminal:
        if found.status == "paused":
            time.sleep(AGAIN_SECONDS)  # the server answers at once
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{what_is} still {found.status} after {timeout_seconds} seconds")
    return found


def _until(deadline: float) -> float:
    return min(LONG_POLL_SECONDS, max(0.0, deadline - time.monotonic()))
