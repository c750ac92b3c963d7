"""What rules are made of: what hypothesis chooses from, and when there is anything to choose."""

from typing import Any, Protocol

from hypothesis import strategies as st
from hypothesis.stateful import precondition

from benchmarks.simulation.fragile import Death
from benchmarks.simulation.world import World


class Machine(Protocol):
    """What a rule is taken on; it says so by `took`, and every claim is looked at."""

    world: World

    def took(self, name: str) -> None: ...


which = st.integers(0, 5)
yes = st.booleans()
deaths = st.sampled_from(
    [None, None, None, None, Death("before"), Death("after"), Death("object"), Death("object", 1), Death("after", 1)]
)
later_deaths = st.sampled_from(
    [None, None, *(Death(when, number) for when in ("before", "after") for number in range(4)), Death("object", 2)]
)


def has(*names: str) -> Any:
    """Whether the record has any of each of these."""
    return precondition(lambda machine: all(getattr(machine.world.told, name) for name in names))


def has_jobs(prefix: str) -> Any:
    return precondition(lambda machine: any(one.startswith(prefix) for one in machine.world.told.jobs))


def knows(name: str) -> Any:
    """Whether there is an attempt, lost or not, that may do something."""
    return precondition(lambda machine: bool(getattr(machine.world, name)))
