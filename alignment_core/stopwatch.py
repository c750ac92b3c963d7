"""Seconds that a part of the work takes, added up; those of a GPU until it has done what it was told."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass
class Stopwatch:
    """Runs now and then; nothing but reading it starts it anew."""

    seconds: float = 0.0

    @contextmanager
    def running(self, device: torch.device | None = None) -> Iterator[None]:
        """What is done inside counts; with a `device` that is waited for, without what it still had to do before."""
        _settle(device)
        started = time.monotonic()
        try:
            yield
        finally:
            _settle(device)
            self.seconds += time.monotonic() - started

    def take(self) -> float:
        """The seconds since it was read last."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


def _settle(device: torch.device | None) -> None:
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
