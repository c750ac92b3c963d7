"""The history of the tables (Alembic), and `migrate`, which brings a database up to date."""

import fcntl
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from service.store.database import Store, open_store

_LOCK = 7_276_884_636  # any number, the same in every process: PostgreSQL's name for "Attune migrates"


def migrate(url: str) -> None:
    """Upgrade the database at `url` to the newest tables. Processes that start together wait for one another."""
    with migrating(url) as connection:
        command.upgrade(alembic_config(connection), "head")


@contextmanager
def migrating(url: str) -> Generator[sa.Connection]:
    """A connection for migrations; nobody else migrates the database while it is open."""
    store = open_store(url)
    try:
        is_sqlite = store.engine.dialect.name == "sqlite"
        with _sqlite_connection(store) if is_sqlite else _postgresql_connection(store) as connection:
            yield connection
    finally:
        store.close()


def alembic_config(connection: sa.Connection) -> Config:
    """Alembic's configuration for an open connection; there is no ini file."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _postgresql_connection(store: Store) -> Generator[sa.Connection]:
    with store.engine.connect() as connection:
        connection.execute(sa.text("SELECT pg_advisory_lock(:lock)"), {"lock": _LOCK})
        connection.commit()
        try:
            yield connection
        finally:
            connection.rollback()
            connection.execute(sa.text("SELECT pg_advisory_unlock(:lock)"), {"lock": _LOCK})
            connection.commit()


@contextmanager
def _sqlite_connection(store: Store) -> Generator[sa.Connection]:
    # SQLite has no advisory locks: a file beside the database stands in for one
    with Path(f"{store.engine.url.database}.migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with store.engine.connect().execution_options(attune_writes=True) as connection:
            # batch mode rebuilds a table by dropping the old one, which would delete the rows that refer to it
            raw = connection.connection.dbapi_connection
            assert raw is not None
            raw.cursor().execute("PRAGMA foreign_keys = OFF")
            yield connection
