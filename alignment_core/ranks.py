"""The processes of a run: who does which part of its work, and how what each has found reaches all.

Draws are named by their place (`seeds`), so a part is the same whoever does it, and every process ends with the same results in
the same order. In one process all of it is plain iteration.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from alignment_core.errors import AlignmentError

PATIENCE = timedelta(days=2)  # preparing a large dataset takes hours, and the fastest process waits for the slowest

E = TypeVar("E")
P = TypeVar("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Ranks:
    """This process among the `count` that train together; `group` carries what lies in the host's memory.

    All processes call the same of these in the same order. With sharded weights a forward is something that all do together, so
    a process that is left over repeats another's part, and what it found is dropped.
    """

    rank: int = 0
    count: int = 1
    group: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def rounds(self, parts: Iterable[P]) -> Iterator[Sequence[P]]:
        """As many parts at a time as there are processes; perhaps fewer in the last round."""
        remaining = iter(parts)
        while own := list(islice(remaining, self.count)):
            yield own

    def each(self, parts: Sequence[P], work: Callable[[P], R]) -> list[R]:
        """`work` of the parts of one round, each done by one process; every process receives all, in order."""
        own = parts[min(self.rank, len(parts) - 1)]
        return self.everywhere(lambda: work(own))[: len(parts)]

    def in_turn(self, parts: Iterable[P], work: Callable[[P], R]) -> Iterator[R]:
        """`work` of every part, in order, round by round."""
        for own in self.rounds(parts):
            yield from self.each(own, work)

    def everywhere(self, work: Callable[[], R]) -> list[R]:
        """What `work` gives in each process, in order, on the CPU; an `AlignmentError` of one is raised in all."""
        return [work()] if self.count == 1 else self._exchange(_outcome(work))

    def together(self, work: Callable[[], R]) -> R:
        """What `work` gives here; an `AlignmentError` of one process is raised in all."""
        if self.count == 1:
            return work()
        outcome = _outcome(work)
        self._exchange(outcome if isinstance(outcome, _Failure) else None)
        return cast(R, outcome)

    def in_first(self, work: Callable[[], R]) -> R | None:
        """What `work` gives in the first process, and None in the others, which wait for it; an `AlignmentError` is raised in all."""
        return self.together(lambda: work() if self.is_first else None)

    def of_first(self, work: Callable[[], R]) -> R:
        """What `work` gives in the first process, in every process; the others do not do it."""
        found = self.everywhere(lambda: work() if self.is_first else None)[0]
        return cast(R, found)

    def joined(self, rows: Tensor) -> Tensor:
        """The rows of every process in order; of several they lie on the CPU."""
        return rows if self.count == 1 else torch.cat(self.everywhere(lambda: rows.cpu()))

    def after_first(self, work: Callable[[], R]) -> R:
        """What `work` gives here; the others begin once the first has ended, and find what it left on the disk."""
        found = self.together(lambda: [work()] if self.is_first else [])
        return self.together(lambda: found[0] if found else work())

    def shared_out(self, work: Generator[E, None, R]) -> Generator[E, None, list[R]]:
        """What `work` gives in each process, in order, of which this one tells what happens in its own."""
        try:
            outcome: R | _Failure = yield from work
        except AlignmentError as error:
            if self.count == 1:
                raise
            outcome = _Failure(type(error), vars(error))
        return [cast(R, outcome)] if self.count == 1 else self._exchange(outcome)

    def _exchange(self, outcome: "R | _Failure") -> list[R]:
        outcomes: list[Any] = [None] * self.count
        dist.all_gather_object(outcomes, outcome, group=self.group)
        for one in outcomes:
            if isinstance(one, _Failure):
                raise one.kind(**one.fields)
        return outcomes


ALONE = Ranks()


@dataclass(frozen=True)
class _Failure:
    """An error as it travels: exceptions with named arguments cannot be pickled."""

    kind: type[AlignmentError]
    fields: Mapping[str, Any]


def _outcome(work: Callable[[], R]) -> R | _Failure:
    try:
        return work()
    except AlignmentError as error:
        return _Failure(type(error), vars(error))


def ranks_of(rank: int, count: int) -> Ranks:
    """Those of a run whose processes are connected; a group of its own, where the devices' one cannot carry host memory."""
    if count == 1:
        return ALONE
    if dist.get_backend() == "gloo":
        return Ranks(rank, count, None)
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    assert isinstance(group, dist.ProcessGroup)  # a number stands for the group of others alone
    return Ranks(rank, count, group)
