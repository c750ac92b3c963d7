"""A clock that is set, and a database and an object store in the middle of which a process may die."""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal, NoReturn

from sqlalchemy.orm import Session

from service.store.database import Store
from service.store.objects import DirectoryStore, ObjectInfo

START = datetime(2030, 1, 31, 22, 30, tzinfo=UTC)  # an hour and a month end soon
READING = timedelta(milliseconds=1)


class Died(BaseException):
    """The process ended here. No `except Exception` hears of it, as of a SIGKILL."""


@dataclass(frozen=True)
class Death:
    """In which transaction, before its commit or after it, or at which object: before it is written."""

    when: Literal["before", "after", "object"]
    number: int = 0


@dataclass
class Clock:
    """Stands still but for a millisecond a reading, so that what is ordered by time has an order."""

    time: datetime = START

    def __call__(self) -> datetime:
        self.time += READING
        return self.time

    def pass_by(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


class Fuse:
    """Counts transactions and objects until the death that was set; `commits` are those that were kept."""

    def __init__(self) -> None:
        self.light(None)

    def light(self, death: Death | None) -> None:
        self._death, self._transactions, self._objects = death, 0, 0
        self.commits, self._is_dead = 0, False

    def burn(self, when: Literal["before", "after"]) -> None:
        if self._is_dead or self._death == Death(when, self._transactions):
            self._die()
        if when == "after":
            self._transactions += 1

    def burn_at_object(self) -> None:
        if self._is_dead or self._death == Death("object", self._objects):
            self._die()
        self._objects += 1

    def _die(self) -> NoReturn:
        """What a handler of `BaseException` would still do on the way out, a dead process does not."""
        self._is_dead = True
        raise Died


class FragileStore(Store):
    """The store as it is, in which a process may die just before a commit or just after it."""

    fuse: Fuse

    @contextmanager
    def write(self) -> Generator[Session]:
        with super().write() as session:
            yield session
            session.flush()
            self.fuse.burn("before")
        self.fuse.commits += 1
        self.fuse.burn("after")


class FragileObjects:
    """A directory of objects that are as old as the clock says, and in the middle of which a process may die."""

    def __init__(self, root: Path, clock: Clock, fuse: Fuse) -> None:
        self._inner, self._folder = DirectoryStore(root), root.resolve() / "data"
        self._clock, self._fuse = clock, fuse

    def put_file(self, key: str, path: Path) -> None:
        self._fuse.burn_at_object()
        self._inner.put_file(key, path)
        self._date(key)

    def put_bytes(self, key: str, content: bytes) -> None:
        self._fuse.burn_at_object()
        self._inner.put_bytes(key, content)
        self._date(key)

    def get_file(self, key: str, path: Path) -> None:
        self._inner.get_file(key, path)

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return self._inner.open_range(key, start, end)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        return self._inner.list(prefix)

    def head(self, key: str) -> ObjectInfo:
        return self._inner.head(key)

    def delete(self, key: str) -> None:
        self._fuse.burn_at_object()
        self._inner.delete(key)

    def url(self, key: str, expires_seconds: int, filename: str) -> str | None:
        return self._inner.url(key, expires_seconds, filename)

    def all_keys(self) -> set[str]:
        """Of all objects, read from the folder itself."""
        found = (Path(folder, name) for folder, _, names in os.walk(self._folder) for name in names)
        return {path.relative_to(self._folder).as_posix() for path in found}

    def _date(self, key: str) -> None:
        time = self._clock.time.timestamp()
        os.utime(self._folder / key, (time, time))
