"""How a step of pairs is cut up where the memory decides: as large as fits, found by halving.

Draws are named by their place in the step, so the step is the same however it is cut up, to float rounding; and a step that ran out of
memory is begun again from its first pair, before anything was changed.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

import torch

from alignment_core.methods.pair_batches import PairDraws
from alignment_core.protocols import Method

B = TypeVar("B")


class MicroBatchTooLarge(torch.OutOfMemoryError):
    """The device ran out of memory in a forward or a backward: no weight was touched."""


@contextmanager
def within_memory() -> Iterator[None]:
    """Tell where memory ran out: here a smaller micro-batch helps."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MicroBatchTooLarge(str(error)) from error


@dataclass(frozen=True)
class Split:
    """Examples in a forward pass, and forward passes in a step."""

    batch_size: int
    accumulation: int

    def halved(self) -> Self | None:
        """The same step in passes of at most half as many; None where one has a single example."""
        total = self.batch_size * self.accumulation
        smaller = next((size for size in range(self.batch_size // 2, 0, -1) if total % size == 0), None)
        return None if smaller is None else type(self)(smaller, total // smaller)


@runtime_checkable
class _OfPairs(Protocol):
    @property
    def draws(self) -> PairDraws: ...


def cut_up(method: Method[Any], split: Split) -> Method[Any]:
    """The same method, its steps cut up so."""
    assert isinstance(method, _OfPairs), "the spec lets micro_batch be auto for pairs alone"
    draws = replace(method.draws, batch_size=split.batch_size, accumulation=split.accumulation)
    return replace(method, draws=draws)  # pyright: ignore[reportArgumentType]  (methods are frozen dataclasses)


def free_memory() -> None:
    """What a failed pass left: its graph is a circle with the exception, which nothing holds by now."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
