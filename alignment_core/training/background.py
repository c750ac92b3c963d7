"""A checkpoint that is written while training goes on: one at a time, from a copy in the host's memory.

Of several processes the first one writes, and says to all when the folder is whole, so that they tell of it after the same step.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from alignment_core.ranks import ALONE, Ranks


class BackgroundSave:
    """The checkpoint that is being written, if there is one; what its writing raises is raised to whoever asks for it.

    All processes begin and ask at the same time.
    """

    def __init__(self, ranks: Ranks = ALONE) -> None:
        self._ranks = ranks
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[Path] | None = None
        self._is_writing = False

    def begin(self, write: Callable[[], Path] | None) -> None:
        """Write beside the training; the one before must have been asked for. Only the first process has what to `write`."""
        assert not self._is_writing, "one checkpoint is written at a time"
        self._is_writing = True
        self._written = None if write is None else self._threads.submit(write)

    def take_finished(self) -> Path | None:
        """The folder of a checkpoint that has become whole since; None while it is written, or where there is none."""
        is_done = self._is_writing and self._ranks.of_first(lambda: self._written is not None and self._written.done())
        return self.wait() if is_done else None

    def wait(self) -> Path | None:
        """The same, once it is whole."""
        if not self._is_writing:
            return None
        written, self._written, self._is_writing = self._written, None, False
        return self._ranks.of_first(lambda: written and written.result())

    def wait_alone(self) -> None:
        """Let what this process writes become whole, where the others may not be there any more; nobody is told."""
        if self._written is not None:
            wait([self._written])
