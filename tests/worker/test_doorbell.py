"""Messages say that something waits: never more of them than that, and any of them starts whatever does."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import redis
from celery import Celery

from service.store import datasets, leases
from service.store.projects import DEFAULT_PROJECT_ID
from tests.servers.process import wait_until
from tests.worker.conftest import TRAINER, World
from worker import bell
from worker.app import DATASETS_QUEUE, JOBS_QUEUE, new_app
from worker.parts import WorkerParts
from worker.sweep import sweep


@pytest.fixture
def broker(redis_url: str) -> Iterator[redis.Redis]:
    """The session's server with nothing in it."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
        yield client
        client.flushall()


@pytest.fixture
def app(redis_url: str, broker: object) -> Celery:
    return new_app(redis_url)


def ringing(world: World, app: Celery) -> WorkerParts:
    return replace(
        world.worker(),
        ring=partial(bell.ring, app, world.store),
        ring_dataset=partial(bell.ring_dataset, app, world.store),
    )


def upload(world: World) -> None:
    dataset = datasets.create(world.store, project_id=DEFAULT_PROJECT_ID, filename="pairs.parquet")
    datasets.uploaded(world.store, dataset.id, size_bytes=4, sha256="0" * 64, object_key="projects/p/pairs.parquet")


def test_messages_are_never_more_than_what_waits_however_often_workers_sweep(
    world: World, app: Celery, broker: redis.Redis
) -> None:
    parts = ringing(world, app)
    for _ in range(20):
        world.queue()
    for _ in range(5):
        upload(world)
    lengths = []
    for _ in range(30):
        sweep(parts)
        lengths.append((broker.llen(JOBS_QUEUE), broker.llen(DATASETS_QUEUE)))
    assert max(lengths) == lengths[-1] == (20, 5)


def test_a_broker_that_is_away_costs_a_sweep_nothing_but_the_message(world: World) -> None:
    lost = world.queue()
    assert leases.claim(world.store, lost.id, "w", -1)
    sweep(ringing(world, new_app("redis://127.0.0.1:1/0")))
    assert world.get(lost).state == "queued"


@pytest.fixture
def start_worker(world: World, redis_url: str) -> Iterator[Callable[[], "subprocess.Popen[bytes]"]]:
    started: list[subprocess.Popen[bytes]] = []
    settings = {
        "DATA_DIR": str(world.settings.data_dir),
        "CATALOG_PATH": str(world.catalog_path),
        "BROKER_URL": redis_url,
        "TRAINER_COMMAND": shlex.join(TRAINER),
        "SWEEP_EVERY_SECONDS": "3600",  # what happens here, happens by messages
    }

    def start() -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "celery", "-A", "worker.app", "worker", "--queues", JOBS_QUEUE]
        with (world.root / "worker.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--without-mingle", "--without-gossip"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {f"ATTUNE_{name}": value for name, value in settings.items()},
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def send_stale(app: Celery, number: int) -> None:
    with app.producer_pool.acquire() as producer:
        for _ in range(number):
            app.send_task("attune.run_job", args=["job_gone"], producer=producer, ignore_result=True)


def test_a_job_behind_a_thousand_stale_messages_is_claimed_by_the_next_of_them(
    world: World, app: Celery, broker: redis.Redis, start_worker: Callable[[], object]
) -> None:
    send_stale(app, 1000)
    job = world.queue(steps=400)  # while it runs, no message is taken
    app.send_task("attune.run_job", args=[job.id], ignore_result=True)
    start_worker()
    wait_until(lambda: world.get(job).attempt == 1, "the claim", 60)
    assert broker.llen(JOBS_QUEUE) > 500, "it did not wait until they were gone"


def test_a_stale_message_costs_milliseconds(
    world: World, app: Celery, broker: redis.Redis, start_worker: Callable[[], object]
) -> None:
    """Each took 0.36 s: Celery's loop slept on after the end of a task. 400 of them would take 144 s."""
    send_stale(app, 400)
    start_worker()
    wait_until(lambda: broker.llen(JOBS_QUEUE) < 400, "the worker", 60)
    wait_until(lambda: broker.llen(JOBS_QUEUE) == 0, "the end of the messages", 60)


def test_one_message_is_enough_for_all_jobs_that_wait(
    world: World, app: Celery, start_worker: Callable[[], object]
) -> None:
    first, second, third = world.queue(steps=2), world.queue(steps=2), world.queue(steps=2)
    app.send_task("attune.run_job", args=[third.id], ignore_result=True)
    start_worker()
    wait_until(lambda: world.get(third).is_terminal, "the end of the last job", 60)
    ended = [world.get(job) for job in (first, second, third)]
    assert [job.state for job in ended] == ["succeeded"] * 3, Path(world.root / "worker.log").read_text()
    began = [job.started_at for job in ended]
    assert began == sorted(began, key=str), "in the order of the queue, whatever the message named"
