"""Which objects belong to nobody: a pure function over keys, and what the database says of the things they lie under.

An object goes only if its key has a form that is known, what it lies under is gone or does not name it, and it is older than a grace
time, since an upload comes before its row. A key of any other form is somebody else's and stays.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

OrphanReason = Literal["owner_is_gone", "superseded"]

OWNED = re.compile(
    r"projects/(?P<project>[^/]+)/(?P<kind>jobs|datasets|prompt_sets|uploads)/(?P<owner>[^/]+)/(?P<rest>.+)"
)
OF_ATTEMPT = re.compile(
    r"(?:(?:checkpoints|samples|reports)/\d+|proof|candidates|tensorboard|browsing)/attempt-(?P<attempt>\d+)[./].+"
)
OF_EXPORT = re.compile(r"exports/[^/]+/(?P<export>[^/]+)/.+")


@dataclass(frozen=True)
class Stored:
    """An object of the store."""

    key: str
    modified_at: datetime


@dataclass(frozen=True)
class Owner:
    """What the database says of a job, a data set, a prompt set or an upload: `keys` are those objects of a form with an attempt that its rows name.

    What `running_attempt` and `open_exports` upload is on its way. Without `names_all` everything below it is its own.
    """

    names_all: bool = False
    keys: frozenset[str] = frozenset()
    running_attempt: int | None = None
    open_exports: frozenset[str] = field(default=frozenset())


def orphans(
    objects: Iterable[Stored], owner: Owner | None, time: datetime, grace: timedelta
) -> Iterator[tuple[str, OrphanReason]]:
    """Those of one owner's objects that may go; `owner` is None where the database has no such row."""
    for found in objects:
        matched = OWNED.fullmatch(found.key)
        if matched is None or time - found.modified_at <= grace:
            continue
        if owner is None:
            yield found.key, "owner_is_gone"
        elif owner.names_all and found.key not in owner.keys and _is_over(matched["rest"], owner):
            yield found.key, "superseded"


def _is_over(rest: str, owner: Owner) -> bool:
    """Whether what would have named the object has come and gone; False for a form that is not known."""
    if (of_attempt := OF_ATTEMPT.fullmatch(rest)) is not None:
        return int(of_attempt["attempt"]) != owner.running_attempt
    of_export = OF_EXPORT.fullmatch(rest)
    return of_export is not None and of_export["export"] not in owner.open_exports
