import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from service.store import projects
from service.store.database import open_store
from service.store.migrations import alembic_config, migrate
from service.store.models import Base
from tests.servers.postgres import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new folder' / 'attune.sqlite3'}"
    server: PostgresServer = request.getfixturevalue("postgres_server")
    return server.url(server.make_database())


def test_the_migrations_make_the_tables_that_the_models_describe(empty_url: str) -> None:
    migrate(empty_url)
    store = open_store(empty_url)
    with store.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"render_as_batch": True, "compare_type": True})
        assert compare_metadata(context, Base.metadata) == []
    store.close()


def test_migrating_twice_changes_nothing(empty_url: str) -> None:
    migrate(empty_url)
    store = open_store(empty_url)
    project = projects.create_project(store, "kept")
    migrate(empty_url)
    assert projects.get_project(store, project.id) == project
    store.close()


def test_processes_that_start_together_migrate_once(empty_url: str) -> None:
    program = "import sys; from service.store.migrations import migrate; migrate(sys.argv[1])"
    processes = [
        subprocess.Popen([sys.executable, "-c", program, empty_url], cwd=Path(__file__).parents[3]) for _ in range(2)
    ]
    assert [process.wait(60) for process in processes] == [0, 0]
    store = open_store(empty_url)
    assert projects.get_project(store, projects.DEFAULT_PROJECT_ID) is not None
    store.close()


def test_the_migrations_can_be_undone(empty_url: str) -> None:
    migrate(empty_url)
    store = open_store(empty_url)
    with store.engine.connect() as connection:
        command.downgrade(alembic_config(connection), "base")
    assert sa.inspect(store.engine).get_table_names() == ["alembic_version"]
    store.close()


def test_sqlite_is_opened_with_what_several_processes_need(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'attune.sqlite3'}"
    migrate(url)
    store = open_store(url)
    with store.read() as session:
        pragmas = {
            name: session.execute(sa.text(f"PRAGMA {name}")).scalar_one()
            for name in ("journal_mode", "busy_timeout", "foreign_keys", "synchronous")
        }
    assert pragmas == {"journal_mode": "wal", "busy_timeout": 30_000, "foreign_keys": 1, "synchronous": 1}
    store.close()
