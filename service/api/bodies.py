"""The body of a request while it arrives: a sender that falls silent is given up, else it would hold a connection and a file for good."""

import asyncio
import time
from collections.abc import AsyncIterator

from starlette.requests import Request

from service.errors import ApiError

SLOWEST_BYTES = 64 << 10  # in `idle_seconds`
AGAIN_SECONDS = 1


class SenderStalled(ApiError):  # noqa: N818 - a state of affairs, read as one
    """408: too little came for too long."""


async def arriving(request: Request, idle_seconds: float) -> AsyncIterator[bytes]:
    """The chunks of the body. Raises `SenderStalled` when waiting for the next 64 KiB, or for the end, has taken so long in all."""
    chunks = request.stream()
    came, left = 0, idle_seconds
    while True:
        waits_since = time.monotonic()
        try:
            async with asyncio.timeout(left):
                chunk = await anext(chunks, None)
        except TimeoutError as error:
            raise _stalled(idle_seconds) from error
        if chunk is None:
            return
        came, left = came + len(chunk), left - (time.monotonic() - waits_since)
        if came >= SLOWEST_BYTES:
            came, left = 0, idle_seconds
        yield chunk


def _stalled(idle_seconds: float) -> SenderStalled:
    detail = f"fewer than {SLOWEST_BYTES} bytes of the body came in {idle_seconds:g} seconds; send it again"
    headers = {"Retry-After": str(AGAIN_SECONDS), "Connection": "close"}  # the rest of the body is no next request
    return SenderStalled(408, "sender_stalled", detail, headers=headers)
