"""Real workers on a real broker: a message starts a job, SIGTERM gives it back, a lost broker costs nothing."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa

from attune import valkey
from service.queue import Bell
from service.settings import Settings
from service.store import database, jobs, waiting
from service.store.models import Job
from service.store.projects import DEFAULT_PROJECT_ID
from tests.servers.process import wait_until
from tests.worker.conftest import TRAINER, World
from worker.app import DATASETS_QUEUE, JOBS_QUEUE

StartWorker = Callable[[str], subprocess.Popen[bytes]]


@pytest.fixture
def broker(world: World) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Starts the embedded broker; call it again after killing the one before."""
    started = []

    def start() -> subprocess.Popen[bytes]:
        path = valkey.socket_path(world.settings.data_dir)
        command = valkey.server_command(valkey.find_server(), world.settings.data_dir, path)
        started.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        valkey.wait_for_server(path)
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def start_worker(world: World) -> Iterator[StartWorker]:
    started = []
    broker_url = valkey.broker_url(valkey.socket_path(world.settings.data_dir))
    settings = {
        "DATA_DIR": str(world.settings.data_dir),
        "CATALOG_PATH": str(world.catalog_path),
        "BROKER_URL": broker_url,
        "TRAINER_COMMAND": shlex.join(TRAINER),
        "LEASE_SECONDS": "3",
        "HEARTBEAT_SECONDS": "0.5",
        "POLL_SECONDS": "0.2",
        "SWEEP_EVERY_SECONDS": "0.5",
        "CANCEL_GRACE_SECONDS": "5",
    }

    def start(behaviour: str = "{}", jobs_queue: str = JOBS_QUEUE, **more: str) -> subprocess.Popen[bytes]:
        environment = {f"ATTUNE_{name}": value for name, value in {**settings, **more}.items()}
        log = (world.root / f"worker-{len(started)}.log").open("wb")
        arguments = ["-m", "celery", "-A", "worker.app", "worker", "--queues", f"{jobs_queue},{DATASETS_QUEUE}"]
        with log:
            process = subprocess.Popen(
                [sys.executable, *arguments, "--without-mingle", "--without-gossip"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | environment | {"TRAINER_BEHAVIOUR": behaviour},
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def ring(world: World, job_id: str) -> None:
    url = valkey.broker_url(valkey.socket_path(world.settings.data_dir))
    bell = Bell(
        url,
        num_jobs=partial(waiting.num_jobs, world.store),
        num_datasets=partial(waiting.num_datasets, world.store),
    )
    bell.start()
    bell.ring(job_id)
    bell.close()


def log_of(world: World, number: int = 0) -> str:
    return (world.root / f"worker-{number}.log").read_text()


def test_a_message_runs_a_job_and_torch_stays_out_of_the_worker(
    world: World, broker: Callable[[], object], start_worker: StartWorker
) -> None:
    broker()
    worker = start_worker("{}")
    job = world.queue()
    ring(world, job.id)
    wait_until(lambda: world.get(job).is_terminal, "the end of the job")
    assert world.get(job).state == "succeeded", log_of(world)
    maps = Path(f"/proc/{worker.pid}/maps").read_text()
    assert "libtorch" not in maps


def test_sigterm_gives_the_job_back_and_another_worker_goes_on(
    world: World, broker: Callable[[], object], start_worker: StartWorker
) -> None:
    broker()
    job = world.queue(steps=60, every=1000)
    first = start_worker(json.dumps({"step_seconds": 0.1}))
    ring(world, job.id)
    wait_until(lambda: world.get(job).progress.step >= 3, "a few steps")
    start_worker(json.dumps({"step_seconds": 0.01}))
    first.send_signal(signal.SIGTERM)
    assert first.wait(timeout=15) == 0, log_of(world)
    wait_until(lambda: world.get(job).is_terminal, "the end of the job", 20)
    assert world.get(job).state == "succeeded", log_of(world, 1)
    assert world.get(job).attempt == 2


def test_a_lost_broker_costs_a_running_job_nothing_and_its_return_brings_the_queued_ones(
    world: World, broker: Callable[[], subprocess.Popen[bytes]], start_worker: StartWorker
) -> None:
    server = broker()
    running = world.queue(steps=40, every=1000)
    start_worker(json.dumps({"step_seconds": 0.05}))
    ring(world, running.id)
    wait_until(lambda: world.get(running).progress.step >= 3, "a few steps")
    server.kill()
    server.wait()
    waiting = world.queue()
    wait_until(lambda: world.get(running).is_terminal, "the end of the job")
    assert world.get(running).state == "succeeded"
    assert world.get(running).attempt == 1
    broker()
    wait_until(lambda: world.get(waiting).is_terminal, "the end of the queued job", 30)
    assert world.get(waiting).state == "succeeded", log_of(world)


def test_the_sweep_goes_on_while_the_worker_is_busy(
    world: World, broker: Callable[[], object], start_worker: StartWorker
) -> None:
    broker()
    lost, busy = world.queue(), world.queue(steps=1000)
    from service.store import leases

    assert leases.claim(world.store, lost.id, "gone", lease_seconds=600)
    start_worker(json.dumps({"step_seconds": 0.05}))
    ring(world, busy.id)
    wait_until(lambda: world.get(busy).progress.step >= 1, "the first step")
    with world.store.write() as session:  # its lease ends once the worker is busy, however long that took to start
        past = database.now(session) - timedelta(seconds=1)
        session.execute(sa.update(Job).where(Job.id == lost.id).values(lease_expires_at=past))
    wait_until(lambda: world.get(lost).state == "queued", "the sweep", 15)
    assert world.get(busy).state == "running"
    jobs.request_cancel(world.store, DEFAULT_PROJECT_ID, busy.id)
    wait_until(lambda: world.get(lost).is_terminal, "the end of the job that was lost")
    assert world.get(lost).attempt == 2


def test_every_setting_of_the_celery_app_that_was_measured_stands() -> None:
    from worker.app import new_app

    conf = new_app(Settings().resolved_broker_url).conf
    assert conf.task_acks_late is False
    assert conf.worker_disable_prefetch is True
    assert conf.worker_cancel_long_running_tasks_on_connection_loss is False
    assert conf.accept_content == ["json"]
    assert conf.result_backend is None


@pytest.mark.slow
def test_a_worker_of_a_class_passes_over_the_jobs_of_others(
    world: World, broker: Callable[[], object], start_worker: Callable[..., object]
) -> None:
    broker()
    small, large = world.queue(), world.queue()
    with world.store.write() as session:
        session.execute(sa.update(Job).where(Job.id == large.id).values(processes=4))
    start_worker(jobs_queue="celery.large", RESOURCE_CLASSES="small:1,large:8")  # its own sweep rings
    wait_until(lambda: world.get(large).is_terminal, "the end of the large job")
    assert (world.get(large).state, world.get(small).state) == ("succeeded", "queued"), log_of(world)
    start_worker(jobs_queue="celery.small", RESOURCE_CLASSES="small:1,large:8")
    wait_until(lambda: world.get(small).is_terminal, "the end of the small job")
