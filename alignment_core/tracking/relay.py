"""Relay: a tracker in a thread of its own, so that it can neither slow nor end the run that it hears of.

What is told waits in a queue of bounded length. A tracker that raises is told nothing more; one that does not keep up misses points;
one that hangs is left behind. Each is a warning of the run, once, and the run goes on.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from alignment_core.events import Event, WarningRaised
from alignment_core.spec.trackers import TrackerName
from alignment_core.tracking.points import Ending, Told
from alignment_core.tracking.secrets import without_secrets
from alignment_core.tracking.tracker import Tracker

MOST_WAITING = 10_000  # points of an hour of fast steps, some MiB
TOGETHER = 1000

T = TypeVar("T")

log = logging.getLogger(__name__)


class Relay:
    """`tell` returns at once. `warnings` and `files` give what has come of it since they were last asked."""

    def __init__(
        self, name: TrackerName, opened: Callable[[], Tracker], told_of: Callable[[Event], Iterable[Told]]
    ) -> None:
        self.name = name
        self._told_of = told_of
        self._opened = opened
        self._waiting: queue.Queue[Event | Ending] = queue.Queue(MOST_WAITING)
        self._warnings: queue.SimpleQueue[WarningRaised] = queue.SimpleQueue()
        self._files: queue.SimpleQueue[Path] = queue.SimpleQueue()
        self._num_told = 0  # by the run
        self._num_done = 0  # by the tracker
        self._is_behind = False
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name=f"tracker-{name}", daemon=True)
        self._is_started = (
            False  # until there is something to tell: clients are large, and not imported beside the run's own
        )

    @property
    def is_hung(self) -> bool:
        """Whether it was asked to end, and has not."""
        return self._is_started and not self._ended.is_set()

    def tell(self, event: Event) -> None:
        if self._ended.is_set():
            return
        if not self._is_started:
            self._is_started = True
            self._thread.start()
        try:
            self._waiting.put_nowait(event)
            self._num_told += 1
        except queue.Full:
            if not self._is_behind:
                self._is_behind = True
                self._warn("tracker_behind", f"{self.name} does not keep up with the run: points are left out there")

    def catch_up(self, patience_seconds: float) -> None:
        """Wait until all that was told is written, but no longer than this."""
        deadline = time.monotonic() + patience_seconds
        while self._num_done < self._num_told and not self._ended.is_set() and time.monotonic() < deadline:
            time.sleep(0.01)

    def end(self, ending: Ending, patience_seconds: float) -> None:
        """Have it write what is left; a tracker that takes longer is left behind."""
        if not self._is_started:
            self._ended.set()
            return
        try:
            self._waiting.put(ending, timeout=patience_seconds)
        except queue.Full:
            pass
        else:
            self._ended.wait(patience_seconds)
        if self.is_hung:
            self._warn("tracker_hung", f"{self.name} did not answer within {patience_seconds:g} s and was left behind")

    def warnings(self) -> Iterator[WarningRaised]:
        yield from _taken(self._warnings)

    def files(self) -> Iterator[Path]:
        yield from _taken(self._files)

    def _work(self) -> None:
        try:
            tracker = self._opened()
            while not self._ended.is_set():
                self._step(tracker)
        except Exception as error:  # noqa: BLE001  whatever a client of others raises is no matter of the run
            detail = without_secrets(f"{type(error).__name__}: {error}")
            log.warning("the tracker %s failed: %s", self.name, detail)
            self._warn("tracker_failed", f"{self.name} failed and hears nothing more of the run: {detail}")
            self._ended.set()

    def _step(self, tracker: Tracker) -> None:
        events: list[Event] = []
        following: Event | Ending = self._waiting.get()
        while not isinstance(following, str):
            events.append(following)
            if len(events) == TOGETHER or self._waiting.empty():
                break
            following = self._waiting.get()
        self._keep(tracker.tell([told for event in events for told in self._told_of(event)]))
        self._num_done += len(events)
        if isinstance(following, str):
            self._keep(tracker.end(following))
            self._ended.set()

    def _keep(self, files: list[Path]) -> None:
        for path in files:
            self._files.put(path)

    def _warn(self, code: str, message: str) -> None:
        self._warnings.put(WarningRaised(code=code, message=message))


def _taken(waiting: queue.SimpleQueue[T]) -> Iterator[T]:
    while True:
        try:
            yield waiting.get_nowait()
        except queue.Empty:
            return
