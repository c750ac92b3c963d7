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
from alignment_core.ranks import ALONE, Ranks

B = TypeVar("B")


class MicroBatchTooLarge(torch.OutOfMemoryError):
    """The device ran out of memory in a forward or a backward: no weight was touched."""


@dataclass(frozen=True)
class StepMemory:
    """Whether a step fits the memory: here a smaller micro-batch helps. Of processes that cut it up alike, whether it fits all.

    A pass must then be one that no process waits for another in; those that had room hear of it where their step ends.
    """

    ranks: Ranks = ALONE

    @contextmanager
    def of_pass(self) -> Iterator[None]:
        """A forward or a backward inside that runs out of memory does so as `MicroBatchTooLarge`."""
        try:
            yield
        except torch.OutOfMemoryError as error:
            self.ranks.everywhere(lambda: False)
            raise MicroBatchTooLarge(str(error)) from error

    def agree(self) -> None:
        """After the last pass of a step, and before the processes add up what they have."""
        if not all(self.ranks.everywhere(lambda: True)):
            raise MicroBatchTooLarge("another process ran out of memory")


OWN_MEMORY = StepMemory()


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
