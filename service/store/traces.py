"""The trace that a request belongs to, kept with what it queues: a W3C `traceparent` (w3.org/TR/trace-context).

None where traces are switched off; this package knows nothing else of them.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar

LONGEST_TRACEPARENT = 55

_traceparent: ContextVar[str | None] = ContextVar("traceparent", default=None)


def current_traceparent() -> str | None:
    return _traceparent.get()


@contextmanager
def traced(traceparent: str | None) -> Iterator[None]:
    """What is queued within belongs to this trace."""
    token = _traceparent.set(traceparent)
    try:
        yield
    finally:
        _traceparent.reset(token)


def continued(traceparent: str | None) -> AbstractContextManager[None]:
    """What is queued within belongs to the request that is answered just now, or where there is none to this trace."""
    return traced(_traceparent.get() or traceparent)
