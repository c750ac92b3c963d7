"""A database that restarts must not cost a run: try again for as long as the lease would last."""

import time
from collections.abc import Callable
from typing import TypeVar

import structlog
from sqlalchemy.exc import OperationalError

T = TypeVar("T")

PAUSE_SECONDS = 0.5

log = structlog.get_logger()


def patiently(write: Callable[[], T], patience_seconds: float) -> T:
    """The result of `write`, tried again while the database cannot be reached; then its error is raised.

    `write` has to be one transaction, so that a try that failed has changed nothing.
    """
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            return write()
        except OperationalError as error:
            if time.monotonic() + PAUSE_SECONDS > deadline:
                raise
            log.warning("database_unreachable", error=type(error.orig).__name__)
        time.sleep(PAUSE_SECONDS)
