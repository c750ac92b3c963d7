"""Events as they are sent, read and written out once for all who follow a job at the same place.

Events are never changed, so a page after some number stays right for ever, though more may follow it; the next page is
then asked for after its last. Whoever follows live is at the same place as all others and finds their page.
"""

from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakValueDictionary

import anyio
from fastapi.concurrency import run_in_threadpool

MOST_BYTES = 16 * 2**20


class Chunk(NamedTuple):
    """Some events as bytes of the stream, and the number and id of the last; an empty one has neither."""

    content: bytes
    last_sequence: int
    last_id: str


class Feeds:
    """The chunks that were sent last. `read` gets a job's chunk after a number; it runs in a thread."""

    def __init__(self, read: Callable[[str, str, int], Chunk | None]) -> None:
        self._read = read
        self._chunks: OrderedDict[tuple[str, int], Chunk] = OrderedDict()
        self._size_bytes = 0
        self._locks: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()

    async def after(self, project_id: str, job_id: str, sequence: int) -> Chunk | None:
        """The next events after this number, or None where there are none yet."""
        lock = self._locks.setdefault(job_id, anyio.Lock())
        async with lock:  # the first one reads, and those who wait find it
            key = job_id, sequence
            if (chunk := self._chunks.get(key)) is None:
                chunk = await run_in_threadpool(self._read, project_id, job_id, sequence)
                if chunk is not None:
                    self._keep(key, chunk)
            return chunk

    def _keep(self, key: tuple[str, int], chunk: Chunk) -> None:
        self._chunks[key] = chunk
        self._size_bytes += len(chunk.content)
        while self._size_bytes > MOST_BYTES:
            _, oldest = self._chunks.popitem(last=False)
            self._size_bytes -= len(oldest.content)
