import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from service.store import datasets, jobs, leases, projects
from service.store.database import open_store
from service.store.migrations import alembic_config, migrate, migrating
from service.store.models import Base, Job
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


OLD_TABLES = (
    "api_keys",
    "checkpoint_files",
    "checkpoints",
    "datasets",
    "events",
    "idempotency_keys",
    "jobs",
    "logs",
    "metrics",
    "projects",
    "reports",
    "samples",
)


def _rows_before(connection: sa.Connection, num_jobs: int) -> None:
    """Rows in every table of revision 0003, with whatever may be absent both there and absent."""
    tables = sa.MetaData()
    tables.reflect(connection)
    time = datetime(2026, 11, 1, 12, tzinfo=UTC)

    def add(table: str, **values: object) -> None:
        connection.execute(tables.tables[table].insert().values(values))

    owner = {"project_id": "proj_default"}
    add("api_keys", id="key_1", name="build", prefix="att_1", secret_sha256="0" * 64, created_at=time, **owner)
    for number, state in enumerate(("uploading", "checking", "ready", "failed")):
        lease = {"worker_id": "a:1", "lease_expires_at": time, "rung_at": time} if state == "checking" else {}
        add(
            "datasets",
            id=f"ds_{number}",
            filename="a",
            state=state,
            attempt=1,
            created_at=time,
            updated_at=time,
            **lease,
            **owner,
        )
    body = {"id": "job_0"}
    add(
        "idempotency_keys",
        key="k",
        request_sha256="0" * 64,
        resource_id="job_0",
        status=202,
        body=body,
        created_at=time,
        **owner,
    )
    for number in range(num_jobs):
        job = {"job_id": f"job_{number}", **owner, "attempt": 1}
        model, labels = (
            "m" * 600 if number else "shapes",
            {"team": "d\N{LATIN SMALL LETTER E WITH ACUTE}sign 'a'", "run": "x" * 512} if number else {},
        )
        add(
            "jobs", id=f"job_{number}", metadata=labels, spec={"seed": 7}, spec_sha256="0" * 64, method="diffusion_dpo", model=model,
            state="running" if number else "succeeded", step=3, cancel_requested=False, last_seq=1, attempt=1, num_lost=0,
            worker_id="a:1", lease_expires_at=time, rung_at=time, created_at=time, queued_at=time, updated_at=time, **owner,
        )  # fmt: skip
        add(
            "checkpoints",
            id=f"ckpt_{number}",
            step=2,
            kind="lora",
            is_final=False,
            size_bytes=3,
            created_at=time,
            **job,
        )
        add("checkpoint_files", checkpoint_id=f"ckpt_{number}", path="a", size_bytes=3, sha256="0" * 64, object_key="a")
        add("events", seq=1, id=f"evt_{number}", type="step_completed", data={"step": 1}, time=time, **job)
        add("logs", text="a line", updated_at=time, **job)
        add("reports", step=2, report={"gain": 0.1}, created_at=time, **job)
        add(
            "samples",
            id=f"smp_{number}",
            step=2,
            prompts=["a"],
            size_bytes=3,
            sha256="0" * 64,
            object_key="a",
            created_at=time,
            **job,
        )
        if number:
            add("metrics", split="train", step=1, figures={"loss": 0.5}, time=time, **job)
            add("metrics", split="train", step=2, figures={"loss": None, "margin": 1.0}, time=time, **job)
            add("metrics", split="held_out", step=2, figures={"loss": 0.5}, time=time, **job)


def _counts(connection: sa.Connection, tables: Sequence[str] = OLD_TABLES) -> dict[str, int]:
    return {name: connection.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar_one() for name in tables}


def test_an_upgrade_keeps_every_row_of_every_table(empty_url: str) -> None:
    with migrating(empty_url) as connection:
        command.upgrade(alembic_config(connection), "0003")
        with connection.begin():
            _rows_before(connection, num_jobs=2)
            before = _counts(connection)
        assert all(before.values())
    migrate(empty_url)
    store = open_store(empty_url)
    with store.engine.connect() as connection:
        assert _counts(connection) == before
    upgraded = jobs.get(store, projects.DEFAULT_PROJECT_ID, "job_1")
    assert upgraded is not None
    assert (upgraded.state, upgraded.model) == ("running", "m" * 500)
    found = jobs.list_jobs(store, projects.DEFAULT_PROJECT_ID, metadata=upgraded.metadata)
    assert [job.id for job in found.data] == ["job_1"]
    with store.read() as session:
        names = {row.id: row.metric_names for row in session.scalars(sa.select(Job))}
    assert names == {"job_0": [], "job_1": ["held_out/loss", "loss", "margin"]}
    assert leases.requeue_lost(store, max_attempts=3).requeued == ("job_1",)
    assert set(datasets.sweep(store, max_attempts=3, upload_timeout_seconds=1)) == {"ds_1"}
    store.close()


def test_a_downgrade_keeps_every_row_that_the_older_tables_hold(empty_url: str) -> None:
    with migrating(empty_url) as connection:
        command.upgrade(alembic_config(connection), "0003")
        with connection.begin():
            _rows_before(connection, num_jobs=2)
            before = _counts(connection)
        command.upgrade(alembic_config(connection), "head")
        command.downgrade(alembic_config(connection), "0003")
        assert _counts(connection) == before
