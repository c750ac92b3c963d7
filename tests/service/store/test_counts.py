"""Counts by state are what counting row by row would say, whoever changes what at the same time."""

import random
import sqlite3
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from alignment_core.spec import JobSpec
from service.resource_classes import parse_classes
from service.store import counts, deletion, deliveries, jobs, leases, webhooks
from service.store.database import Store, open_store
from service.store.models import Job, StateCount, WebhookDelivery
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.base import JobError
from service.store.records.jobs import JobRecord
from tests.service.store.plans import explain, sent_by

FAILED = JobError(code="worker_error", message="lost", category="system", retryable=True)


def counted_by_row(store: Store, table: type[Job | WebhookDelivery]) -> dict[str, int]:
    with store.read() as session:
        found = session.execute(sa.select(table.state, sa.func.count()).group_by(table.state)).all()
    return {state: num for state, num in found}  # noqa: C416  rows are tuples to run time alone


def without_zeros(counted: Mapping[Any, int]) -> dict[str, int]:
    return {state: num for state, num in counted.items() if num}


def check(store: Store) -> None:
    assert without_zeros(counts.jobs_by_state(store)) == counted_by_row(store, Job)
    assert without_zeros(counts.deliveries_by_state(store)) == counted_by_row(store, WebhookDelivery)


def live(store: Store, spec: JobSpec, seed: int, num_steps: int) -> None:
    """A history of jobs that are made, claimed, ended, paused, resumed and deleted, and of lines that are added up in between."""
    draw, mine = random.Random(seed), list[str]()
    for _ in range(num_steps):
        mine = mine or [jobs.create(store, project_id=PROJECT, spec=spec).id]
        one = draw.choice(mine)
        match draw.choice(("create", "claim", "end", "pause", "resume", "cancel", "delete", "add up")):
            case "create":
                mine.append(jobs.create(store, project_id=PROJECT, spec=spec).id)
            case "claim":
                leases.claim(store, one, "w", 60)
            case "end" if (claim := leases.claim(store, one, "w", 60)) is not None:
                if draw.random() < 0.5:
                    leases.finish(store, one, claim.attempt, "succeeded")
                else:
                    leases.finish(store, one, claim.attempt, "failed", FAILED)
            case "pause" | "resume" | "cancel" as verb:
                ask = {"pause": jobs.request_pause, "resume": jobs.resume, "cancel": jobs.request_cancel}[verb]
                with suppress(jobs.InvalidTransition):
                    ask(store, PROJECT, one)
            case "delete" if (job := jobs.get(store, PROJECT, one)) is not None and job.is_terminal:
                deletion.delete_job(store, PROJECT, one)
                mine.remove(one)
            case "add up":
                counts.add_up(store, at_most=draw.choice((0, 5)))
            case _:
                pass


def test_no_later_migration_has_lost_a_trigger(sqlite_template: bytes, tmp_path: Path) -> None:
    """SQLite drops those of a table that a migration makes anew."""
    path = tmp_path / "attune.sqlite3"
    path.write_bytes(sqlite_template)
    with closing(sqlite3.connect(path)) as opened:
        found = opened.execute("SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'").fetchall()
    changes, tables = ("insert", "delete", "update"), ("jobs", "webhook_deliveries")
    assert {(table, f"count_{table}_{change}") for table in tables for change in changes} <= set(found)


def test_counts_are_those_of_the_rows_after_any_history(store: Store, spec: JobSpec) -> None:
    webhooks.create(store, project_id=PROJECT, url="https://hooks.example.org/attune", sealed_secret="s", most=5)
    for seed in range(5):
        live(store, spec, seed, 40)
        check(store)
    assert counts.jobs_by_state(store)["succeeded"]
    assert counts.deliveries_by_state(store)["pending"]
    deliveries.forget_old(store, keep_days=-1)
    check(store)


def test_histories_at_the_same_time_lose_no_count(store: Store, spec: JobSpec) -> None:
    """SQLite has one writer; on PostgreSQL the triggers of all of them and those who add up meet."""
    with ThreadPoolExecutor(6) as threads:
        for done in [threads.submit(live, store, spec, seed, 60) for seed in range(6)]:
            done.result()
    check(store)


def test_adding_up_leaves_a_line_for_each_state_and_few_are_left_alone(
    store: Store, new_job: Callable[[], JobRecord]
) -> None:
    made = [new_job() for _ in range(20)]
    leases.claim(store, made[0].id, "w", 60)
    assert counts.add_up(store) == 0
    before = counts.jobs_by_state(store)
    assert counts.add_up(store, at_most=10) == 22
    assert counts.jobs_by_state(store) == before == {**dict.fromkeys(before, 0), "queued": 19, "starting": 1}
    with store.read() as session:
        lines = session.execute(sa.select(StateCount.counted, StateCount.state, StateCount.num)).all()
    assert sorted(tuple(line) for line in lines) == [("jobs", "queued", 19), ("jobs", "starting", 1)]


def test_no_scrape_reads_the_jobs_that_have_ended(store: Store, job: JobRecord) -> None:
    sent = sent_by(store)
    counts.jobs_by_state(store)
    counts.deliveries_by_state(store)
    counts.waiting_by_class(store)
    read = [one for one in sent if "FROM jobs" in one[0] or "FROM webhook_deliveries" in one[0]]
    ((statement, parameters),) = read
    assert "jobs.state = " in statement
    if store.engine.dialect.name == "sqlite":  # PostgreSQL reads so few rows all
        assert "ix_jobs" in explain(store, statement, parameters)


def test_the_queue_is_counted_by_class_and_the_first_of_each_is_the_oldest(
    database_url: str, spec: JobSpec, job: JobRecord
) -> None:
    large = spec.model_copy(update={"resources": spec.resources.model_copy(update={"processes": 2})})
    opened = open_store(database_url, parse_classes("small:1,large:8"))
    for _ in range(3):
        jobs.create(opened, project_id=PROJECT, spec=large)
    found = counts.waiting_by_class(opened)
    assert {name: one.num for name, one in found.items()} == {"small": 1, "large": 3}
    assert found["small"].seconds > found["large"].seconds > 0
    opened.close()
