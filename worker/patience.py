"""A database or an object store that restarts must not cost a run: try again for as long as the lease would last."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import OperationalError

from service.store.unavailable import ObjectsUnavailable

T = TypeVar("T")

PAUSE_SECONDS = 0.5

log = structlog.get_logger()


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
