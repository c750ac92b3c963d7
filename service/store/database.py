"""Store: the database behind every function of this package, SQLite or PostgreSQL.

`store.read()` and `store.write()` open a session and a transaction; the functions beside this file take a `Store` first
and are one transaction each.
"""

import json
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event as sa_event
from sqlalchemy.orm import Session

from service.resource_classes import ResourceClass
from service.store import audit
from service.store.limits import Limits

CLASSES = "resource_classes"  # in the `info` of a session
LIMITS = "limits"
CLOCK = "clock"
NONE = Limits()
BUSY_TIMEOUT_SECONDS = 30  # the longest wait seen was 1.4 s, with four processes claiming as fast as they could


class Store:
    """An engine with two kinds of transaction. Threads may share it; after a fork, open a new one.

    `classes` are those of the deployment's jobs: each is a line of its own. `limits` are a project's that has none of its own.
    `clock` takes the place of the database's and of that of leases, for who simulates weeks in a second.
    """

    def __init__(
        self,
        engine: sa.Engine,
        classes: Sequence[ResourceClass] = (),
        limits: Limits = NONE,
        clock: Callable[[], datetime] | None = None,
    ) -> None:
        self.engine = engine
        self.classes = tuple(classes)
        self._info = {CLASSES: self.classes, LIMITS: limits, CLOCK: clock}
        self._writer = engine.execution_options(attune_writes=True)

    @contextmanager
    def read(self) -> Generator[Session]:
        with Session(self.engine, info=self._info) as session, session.begin():
            yield session

    @contextmanager
    def write(self) -> Generator[Session]:
        """A transaction that writes. SQLite takes its write lock at once, so it never fails halfway for the lack of it."""
        with Session(self._writer, expire_on_commit=False, info=self._info) as session, session.begin():
            audit.watch(session)
            yield session
            audit.record_change(session, now)

    def close(self) -> None:
        self.engine.dispose()


def open_store(url: str, classes: Sequence[ResourceClass] = (), limits: Limits = NONE) -> Store:
    """Connect to a database that `migrate(url)` has brought up to date.

    Its errors are logged, so they name the statement and hide its parameters: those hold prompts and hashes of keys.
    """
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite":
        return Store(_sqlite_engine(parsed), classes, limits)
    engine = sa.create_engine(parsed, pool_pre_ping=True, json_serializer=_to_json, hide_parameters=True)
    return Store(engine, classes, limits)


def now(session: Session) -> datetime:
    """The database's clock, so that workers whose own clocks differ agree on when a lease ends."""
    if (clock := session.info.get(CLOCK)) is not None:
        return clock()
    if session.get_bind().dialect.name == "sqlite":  # one machine, one clock
        return datetime.now(UTC)
    return session.execute(sa.select(sa.func.clock_timestamp())).scalar_one().astimezone(UTC)


def _sqlite_engine(url: sa.URL) -> sa.Engine:
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS}, json_serializer=_to_json, hide_parameters=True
    )
    sa_event.listen(engine, "connect", _configure_sqlite)
    sa_event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # sqlite3 leaves BEGIN to `_begin_sqlite`
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads first and writes later would be refused at once, whatever the busy timeout
    writes = connection.get_execution_options().get("attune_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _to_json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)
