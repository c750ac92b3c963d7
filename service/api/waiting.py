"""Long polls: an answer that waits until there is something to tell."""

from collections.abc import Callable
from typing import TypeVar

import anyio
from fastapi import Request

from service.api.lookout import Lookout

LONGEST_WAIT_SECONDS = 300
ASK_CLIENT_SECONDS = 2.0

T = TypeVar("T")


async def wait_until(
    lookout: Lookout[T], identifier: str, seen: T, is_over: Callable[[T], bool], seconds: float, request: Request
) -> None:
    """Return when `is_over` holds, when the thing is gone, when so many seconds have passed, or when the client has left."""
    deadline = anyio.current_time() + seconds
    with lookout.watch(identifier, seen) as watch:
        while watch.seen is not None and not is_over(watch.seen):
            remaining = deadline - anyio.current_time()
            if remaining <= 0:
                return
            changed = await watch.change(min(ASK_CLIENT_SECONDS, remaining))
            if not changed and await request.is_disconnected():
                return
