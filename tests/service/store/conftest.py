"""One store for each database: every test here runs on SQLite and on PostgreSQL."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from alignment_core.spec import JobSpec
from service.store import jobs, leases
from service.store.database import Store, open_store
from service.store.migrations import migrate
from service.store.models import Base, Project
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.jobs import JobRecord
from tests.servers.postgres import PostgresServer

if TYPE_CHECKING:
    from benchmarks.simulation.world import World


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("sqlite") / "template.sqlite3"
    migrate(f"sqlite:///{path}")
    return path.read_bytes()


@pytest.fixture
def sqlite_world(sqlite_template: bytes, tmp_path: Path) -> Iterator["World"]:
    """A simulated service, for the tests of histories."""
    from benchmarks.simulation.world import World  # few tests here want so much

    (tmp_path / "attune.sqlite3").write_bytes(sqlite_template)
    made = World(f"sqlite:///{tmp_path / 'attune.sqlite3'}", tmp_path / "world")
    yield made
    made.close()


@pytest.fixture(scope="session")
def migrated_postgres_url(postgres_server: PostgresServer) -> str:
    url = postgres_server.url(postgres_server.make_database())
    migrate(url)
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database of the newest tables, with nothing in it but the default project."""
    if request.param == "sqlite":
        path = tmp_path / "attune.sqlite3"
        path.write_bytes(request.getfixturevalue("sqlite_template"))
        return f"sqlite:///{path}"
    url: str = request.getfixturevalue("migrated_postgres_url")
    empty(url)
    return url


def empty(url: str) -> None:
    """A hundred times faster than a database for each test."""
    tables = ", ".join(table.name for table in Base.metadata.sorted_tables if table.name != "projects")
    opened = open_store(url)
    with opened.write() as session:
        session.execute(sa.text(f"TRUNCATE {tables}"))
        session.execute(sa.delete(Project).where(Project.id != DEFAULT_PROJECT_ID))
    opened.close()


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    opened = open_store(database_url)
    yield opened
    opened.close()


@pytest.fixture
def spec() -> JobSpec:
    return JobSpec.model_validate(
        {
            "model": {"type": "catalog", "name": "shapes"},
            "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": "ds_" + "0" * 26}},
            "training": {"steps": 40},
        }
    )


@pytest.fixture
def new_job(store: Store, spec: JobSpec) -> Callable[[], JobRecord]:
    return lambda: jobs.create(store, project_id=DEFAULT_PROJECT_ID, spec=spec)


@pytest.fixture
def job(new_job: Callable[[], JobRecord]) -> JobRecord:
    return new_job()


@pytest.fixture
def held(store: Store, job: JobRecord) -> JobRecord:
    """Whose first attempt a worker has."""
    claim = leases.claim(store, job.id, "w", 60)
    assert claim is not None
    return claim.job
