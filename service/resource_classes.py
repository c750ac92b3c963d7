"""Classes of jobs by what they ask of a machine, each with a queue of its own, so that a small job never waits for eight cards.

The operator writes `small:1@24GiB,big:1@80GiB,large:8@80GiB`: jobs of one process on a card of 24 GiB, of one on a card of 80, and of
up to eight on such cards. Without `@` a class takes whatever its jobs need. A job is of the first class that has room for it. A worker
serves the classes whose queues it is started with. Pure: the API, the workers and the settings agree on it.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

JOBS_QUEUE = "celery"
_CLASS = re.compile(r"(?P<name>[a-z0-9][a-z0-9-]{0,39}):(?P<most>\d{1,9})(@(?P<gib>\d{1,6}(\.\d{1,3})?)GiB)?")


@dataclass(frozen=True)
class ResourceClass:
    """Jobs of up to `most` processes, each of which needs at most `gib` of its card's memory."""

    name: str
    most: int
    gib: float = math.inf

    @property
    def queue(self) -> str:
        return f"{JOBS_QUEUE}.{self.name}"

    def covers(self, other: "ResourceClass") -> bool:
        """Whether it takes every job that the other would."""
        return self.most >= other.most and self.gib >= other.gib


def parse_classes(text: str) -> tuple[ResourceClass, ...]:
    """Raises ValueError with what to write."""
    written = [one.strip() for one in text.split(",") if one.strip()]
    found = [_CLASS.fullmatch(one) for one in written]
    if bad := [one for one, match in zip(written, found, strict=True) if match is None]:
        raise ValueError(
            f"expected names with the most processes of each, and its cards' memory, such as small:1@24GiB,large:8@80GiB, not {bad[0]!r}"
        )
    classes = tuple(
        ResourceClass(one["name"], int(one["most"]), math.inf if one["gib"] is None else float(one["gib"]))
        for one in found
        if one is not None
    )
    if any(one.most == 0 or one.gib == 0 for one in classes):
        raise ValueError("expected at least one process, and some memory, in each class")
    for index, one in enumerate(classes):
        if any(earlier.covers(one) for earlier in classes[:index]):
            raise ValueError(
                f"expected more processes, or more memory, in {one.name} than in those before it: no job would be in it"
            )
    if len({one.name for one in classes}) < len(classes):
        raise ValueError("expected a name of its own for each class")
    return classes


def class_of(processes: int, gib: float | None, classes: Sequence[ResourceClass]) -> ResourceClass | None:
    """The first that has room; for a job whose memory nobody has estimated (None) the first of those with the most memory."""
    enough = [one for one in classes if processes <= one.most]
    if gib is None:
        return max(enough, key=lambda one: one.gib, default=None)
    return next((one for one in enough if gib <= one.gib), None)


def served_by(queues: Sequence[str], classes: Sequence[ResourceClass]) -> tuple[ResourceClass, ...]:
    """The classes of a worker that reads these queues."""
    return tuple(one for one in classes if one.queue in queues)
