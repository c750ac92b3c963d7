"""A checkpoint that is written while training goes on: one at a time, from a copy in the host's memory."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path


class BackgroundSave:
    """The checkpoint that is being written, if there is one; what its writing raises is raised to whoever asks for it."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._written: Future[Path] | None = None

    def begin(self, write: Callable[[], Path]) -> None:
        """Write beside the training; the one before must have been asked for."""
        assert self._written is None, "one checkpoint is written at a time"
        self._written = self._threads.submit(write)

    def take_finished(self) -> Path | None:
        """The folder of a checkpoint that has become whole since; None while it is written, or where there is none."""
        return self.wait() if self._written is not None and self._written.done() else None

    def wait(self) -> Path | None:
        """The same, once it is whole."""
        if self._written is None:
            return None
        written, self._written = self._written, None
        return written.result()
