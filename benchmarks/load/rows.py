"""A database as it is after years: jobs and metric points copied from one of each, by the database itself."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import counts
from service.store.database import Store
from service.store.metric_extremes import BLOCK_STEPS
from service.store.models import Metric, MetricBlock

STATES = ("succeeded", "failed", "cancelled")
TEAMS = 100


def copy_jobs(store: Store, job_id: str, first: int, count: int) -> None:
    """`count` ended jobs like this one, each with a label `team`, older than every real one."""
    series = _series(store)
    columns = _columns(store, "jobs", {"id", "state", "metadata"})
    with store.write() as session:
        number = {"first": first, "last": first + count - 1, "job": job_id}
        session.execute(
            sa.text(
                f"""{series} INSERT INTO jobs (id, state, metadata, {columns})
                SELECT {_id_of(store)}, CASE n % 3 WHEN 0 THEN 'succeeded' WHEN 1 THEN 'failed' ELSE 'cancelled' END,
                metadata, {columns} FROM series, jobs WHERE jobs.id = :job"""  # noqa: S608 - names of our own columns
            ),
            number,
        )
        session.execute(
            sa.text(
                f"""{series} INSERT INTO job_labels (job_id, key, project_id, value)
                SELECT {_id_of(store)}, 'team', project_id, CAST(n % {TEAMS} AS VARCHAR(500))
                FROM series, jobs WHERE jobs.id = :job"""  # noqa: S608
            ),
            number,
        )
    _analyze(store)


def copy_points(store: Store, job_id: str, count: int) -> None:
    """Steps 2 to `count` of a job that has the first one, with their blocks."""
    columns = _columns(store, "metrics", {"step"})
    with store.write() as session:
        session.execute(
            sa.text(
                f"""{_series(store)} INSERT INTO metrics (step, {columns}) SELECT n, {columns}
                FROM series, metrics WHERE metrics.job_id = :job AND metrics.step = 1"""  # noqa: S608
            ),
            {"first": 2, "last": count, "job": job_id},
        )
        _copy_blocks(session, job_id, count)
    _analyze(store)


def _copy_blocks(session: Session, job_id: str, count: int) -> None:
    """The extremes that so many steps like the first leave behind: every step is as low and as high as the others."""
    of_the_job = sa.select(Metric).where(Metric.job_id == job_id, Metric.step == 1)
    rows: list[dict[str, Any]] = []
    for one in session.scalars(of_the_job):
        for block in range((count + 1) // BLOCK_STEPS):  # those that have ended
            step = max(1, block * BLOCK_STEPS)
            extremes = {name: (step, value, step, value) for name, value in one.figures.items()}
            whose = {"job_id": job_id, "split": one.split, "project_id": one.project_id}
            rows.append({**whose, "block": block, "extremes": extremes})
    if rows:
        session.execute(sa.insert(MetricBlock), rows)


def _series(store: Store) -> str:
    if store.engine.dialect.name == "sqlite":
        return "WITH RECURSIVE series(n) AS (SELECT :first UNION ALL SELECT n + 1 FROM series WHERE n < CAST(:last AS INT))"
    return "WITH series AS (SELECT n FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS n)"


def _id_of(store: Store) -> str:
    """As the ids of jobs sort, the later the greater; the first digit keeps them older than any that is made now."""
    if store.engine.dialect.name == "sqlite":
        return "'job_' || printf('%026d', n)"
    return "'job_' || lpad(CAST(n AS VARCHAR), 26, '0')"


def _columns(store: Store, table: str, without: set[str]) -> str:
    names = [column["name"] for column in sa.inspect(store.engine).get_columns(table)]
    return ", ".join(f'"{name}"' for name in names if name not in without)


def _analyze(store: Store) -> None:
    """What a server and its workers do by themselves sooner or later."""
    counts.add_up(store)
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
