"""What one request has looked up it does not look up again: many checks of a spec ask the same of its model."""

from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

T = TypeVar("T")

_FOUND: ContextVar[dict[Hashable, Any] | None] = ContextVar("found_by_this_request", default=None)


@contextmanager
def one_request() -> Generator[None]:
    """What is found within is remembered until its end, in the threads too that the request is handed to."""
    token = _FOUND.set({})
    try:
        yield
    finally:
        _FOUND.reset(token)


def once(key: Hashable, look: Callable[[], T]) -> T:
    """What `look` finds, from the first time that this request asked for the key; outside of a request it always looks."""
    found = _FOUND.get()
    if found is None:
        return look()
    if key not in found:
        found[key] = look()
    return found[key]
