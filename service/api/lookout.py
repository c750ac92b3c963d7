"""One look at the database for all who wait: however many watch a job in this process, it is read once every half second.

A task of the running event loop looks while anybody watches, and ends when nobody does.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

import anyio
import structlog
from fastapi.concurrency import run_in_threadpool

LOOK_AGAIN_SECONDS = 0.5

T = TypeVar("T")
log = structlog.get_logger()


class Watch(Generic[T]):
    """One thing that is watched: `seen` is what the last look found, None once it is gone."""

    def __init__(self, seen: T) -> None:
        self.seen: T | None = seen
        self.num_watchers = 0
        self._changed = anyio.Event()

    def see(self, found: T | None) -> None:
        if found != self.seen:
            self.seen = found
            self._changed.set()
            self._changed = anyio.Event()

    async def change(self, seconds: float) -> bool:
        """Wait for another finding; False when none came within so many seconds."""
        with anyio.move_on_after(seconds) as scope:
            await self._changed.wait()
        return not scope.cancelled_caught


class _Loop(Generic[T]):
    """What one event loop watches, and the task that looks."""

    def __init__(self) -> None:
        self.watches: dict[str, Watch[T]] = {}
        self.task: asyncio.Task[None] | None = None


class Lookout(Generic[T]):
    """`look` finds what is watched, by id, in one transaction; it runs in a thread."""

    def __init__(self, look: Callable[[Sequence[str]], Mapping[str, T]]) -> None:
        self._look = look
        self._loops: WeakKeyDictionary[asyncio.AbstractEventLoop, _Loop[T]] = WeakKeyDictionary()

    @contextmanager
    def watch(self, identifier: str, seen: T) -> Iterator[Watch[T]]:
        """Watch one thing, of which the caller has `seen` so much; use it within an event loop."""
        loop = self._loops.setdefault(asyncio.get_running_loop(), _Loop())
        watch = loop.watches.setdefault(identifier, Watch(seen))
        watch.num_watchers += 1
        if loop.task is None or loop.task.done():
            loop.task = asyncio.create_task(self._keep_looking(loop))
        try:
            yield watch
        finally:
            watch.num_watchers -= 1
            if watch.num_watchers == 0:
                loop.watches.pop(identifier, None)

    async def _keep_looking(self, loop: _Loop[T]) -> None:
        while loop.watches:
            await anyio.sleep(LOOK_AGAIN_SECONDS)
            ids = tuple(loop.watches)
            try:
                found = await run_in_threadpool(self._look, ids) if ids else {}
            except Exception as error:  # noqa: BLE001  whoever waits goes on waiting, and the next look may succeed
                log.warning("look_failed", error=repr(error))
                continue
            for identifier in ids:
                if (watch := loop.watches.get(identifier)) is not None:
                    watch.see(found.get(identifier))
