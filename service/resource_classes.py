"""Classes of jobs by what they ask of a machine, each with a queue of its own, so that a small job never waits for eight cards.

The operator writes `small:1,large:8`: jobs of one process, and jobs of two to eight. A worker serves the classes whose queues it
is started with. Pure: the API, the workers and the settings agree on it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

JOBS_QUEUE = "celery"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")


@dataclass(frozen=True)
class ResourceClass:
    """Jobs of `fewest` to `most` processes."""

    name: str
    fewest: int
    most: int

    @property
    def queue(self) -> str:
        return f"{JOBS_QUEUE}.{self.name}"


def parse_classes(text: str) -> tuple[ResourceClass, ...]:
    """Raises ValueError with what to write."""
    written = [one.strip().partition(":") for one in text.split(",") if one.strip()]
    if bad := [name for name, _, most in written if not _NAME.fullmatch(name) or not most.isdecimal()]:
        raise ValueError(f"expected names with the most processes of each, such as small:1,large:8, not {bad[0]!r}")
    limits = [0, *(int(most) for _, _, most in written)]
    if any(later <= earlier for earlier, later in pairwise(limits)):
        raise ValueError("expected more processes in each class than in the one before")
    if len({name for name, _, _ in written}) < len(written):
        raise ValueError("expected a name of its own for each class")
    return tuple(
        ResourceClass(name, fewest + 1, int(most)) for (name, _, most), fewest in zip(written, limits[:-1], strict=True)
    )


def class_of(processes: int, classes: Sequence[ResourceClass]) -> ResourceClass | None:
    return next((one for one in classes if one.fewest <= processes <= one.most), None)


def served_by(queues: Sequence[str], classes: Sequence[ResourceClass]) -> tuple[ResourceClass, ...]:
    """The classes of a worker that reads these queues."""
    return tuple(one for one in classes if one.queue in queues)
