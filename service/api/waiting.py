"""Long polls: an answer that waits until there is something to tell."""

from collections.abc import Callable
from typing import TypeVar

import anyio
from fastapi import Request
from fastapi.concurrency import run_in_threadpool

LONGEST_WAIT_SECONDS = 300
LOOK_AGAIN_SECONDS = 0.5

T = TypeVar("T")


async def wait_until(look: Callable[[], T], is_over: Callable[[T], bool], seconds: float, request: Request) -> T:
    """What `look` finds when `is_over` holds of it, when so many seconds have passed, or when the client has gone."""
    deadline = anyio.current_time() + seconds
    while True:
        found = await run_in_threadpool(look)
        remaining = deadline - anyio.current_time()
        if is_over(found) or remaining <= 0 or await request.is_disconnected():
            return found
        await anyio.sleep(min(LOOK_AGAIN_SECONDS, remaining))
