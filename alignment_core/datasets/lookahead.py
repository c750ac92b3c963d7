"""Shards on their way before they are wanted: the order of a run's examples is known from its seed, so its next steps' are fetched ahead.

What is foreseen and never read, or read in another order, costs nothing but the fetch: a shard is read as it is, whoever fetched it.
"""

from collections import deque
from collections.abc import Sequence
from typing import Protocol, runtime_checkable


@runtime_checkable
class FetchesAhead(Protocol):
    """A shelf that can have shards on their way."""

    @property
    def room_ahead(self) -> int: ...

    def fetch_ahead(self, name: str) -> None: ...


class Lookahead:
    """Fetches for one reader, in the order of its reads, as many shards as have room beside those in use."""

    def __init__(self, shelf: FetchesAhead) -> None:
        self._shelf = shelf
        self._coming: deque[str] = (
            deque()
        )  # in the order of the reads to come; the first `_begun` are on their way or here
        self._begun = 0

    def foresee(self, shards: Sequence[str]) -> None:
        """They are read after those that were foreseen before."""
        self._coming.extend(shards)
        self._begin()

    def read(self, shard: str) -> None:
        """It was just read, and so was what was foreseen before it."""
        if shard not in self._coming:
            return
        while self._coming.popleft() != shard:
            self._begun -= 1
        self._begun = max(0, self._begun - 1)
        self._begin()

    def _begin(self) -> None:
        self._begun = max(0, self._begun)
        while self._begun < min(len(self._coming), self._shelf.room_ahead):
            self._shelf.fetch_ahead(self._coming[self._begun])
            self._begun += 1
