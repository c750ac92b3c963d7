"""A training process that waits for its job serves it like any other, and one that does not costs nothing."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from alignment_core.events import RunCompleted
from service.settings import Settings
from service.store import jobs
from service.store.clock import host_seconds
from service.store.projects import DEFAULT_PROJECT_ID
from tests.worker.conftest import TRAINER, Background, World
from tests.worker.test_process import command_in
from tests.worker.test_run import final_total, undisturbed_total, wait_until
from worker import warm as warm_module
from worker.app import warm_trainer
from worker.launchers.contract import Plan
from worker.launchers.local import LocalLauncher
from worker.parts import WorkerParts
from worker.run import run_job, training_environment
from worker.warm import WarmTrainer

Start = Callable[..., Background]
Behave = Callable[[str], None]
SECRET = "ATTUNE_REMOTE_REWARD_SECRET"


@pytest.fixture
def warm() -> Iterator[WarmTrainer]:
    one = WarmTrainer(TRAINER, training_environment, least_free_bytes=0)
    yield one
    one.close()


def served(world: World, warm: WarmTrainer) -> WorkerParts:
    return replace(world.worker(), launcher=LocalLauncher(warm), warm=warm)


def descendants(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).children(recursive=True)
    return []


def waiting(warm: WarmTrainer) -> psutil.Process:
    """The process that waits, once it is there."""
    warm.look()
    pid = warm.guard_pid
    assert pid is not None
    wait_until(lambda: descendants(pid))
    return descendants(pid)[0]


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_job_runs_in_the_process_that_waited_for_it(
    world: World, start: Start, behave: Behave, warm: WarmTrainer
) -> None:
    process = waiting(warm)
    behave('{"step_seconds": 0.05}')
    job = world.queue(steps=40)
    background = start(served(world, warm), job)
    wait_until(lambda: world.get(job).progress.step > 0)
    assert f"/{job.id}/" in process.cwd()
    background.join()
    assert world.get(job).state == "succeeded"
    assert is_gone(process), "it serves one job"


def test_the_next_job_of_a_worker_gives_the_numbers_of_a_cold_one(
    world: World, warm: WarmTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_module, "AGAIN_SECONDS", -1.0)
    parts, taken = served(world, warm), []
    for _ in range(2):
        taken.append(waiting(warm).pid)
        job = world.queue(steps=10)
        run_job(parts, job.id)
        assert final_total(world, job, parts.objects) == undisturbed_total(job)
    assert len(set(taken)) == 2


@pytest.mark.parametrize("behaviour", ["{}", '{"deaf": true}'])
def test_a_job_in_it_is_cancelled_within_its_grace(
    world: World, start: Start, behave: Behave, warm: WarmTrainer, behaviour: str
) -> None:
    process = waiting(warm)
    behave(json.dumps({"step_seconds": 0.05, **json.loads(behaviour)}))
    job, parts = world.queue(steps=2000), served(world, warm)
    hasty = replace(parts, settings=parts.settings.model_copy(update={"cancel_grace_seconds": 0.3}))
    background = start(hasty, job)
    wait_until(lambda: world.get(job).progress.step > 0)
    jobs.request_cancel(world.store, DEFAULT_PROJECT_ID, job.id)
    background.join()
    assert world.get(job).state == "cancelled"
    assert is_gone(process)


def test_it_ends_with_the_lease_of_its_job(tmp_path: Path, behave: Behave, warm: WarmTrainer) -> None:
    process = waiting(warm)
    gang = warm.take(plan_in(tmp_path, until=host_seconds() + 4.0))
    assert gang is not None
    with gang:
        for _ in gang.batches(0.05):
            pass
    assert is_gone(process)
    assert gang.exit_code != 0


def plan_in(workdir: Path, *, until: float = float("inf"), processes: int = 1, env: dict | None = None) -> Plan:
    _, _, *arguments = command_in(workdir, steps=2000 if until < float("inf") else 2)
    environment = {**training_environment(), **(env or {})}
    return Plan("job_1", 1, TRAINER, tuple(arguments), processes, until, workdir, 5.0, environment)


@pytest.mark.parametrize("how", ["dies", "is silent", "does not answer"])
def test_one_that_fails_while_it_waits_costs_its_job_nothing(
    world: World, behave: Behave, warm: WarmTrainer, how: str
) -> None:
    behave(json.dumps({"waiting": how}))
    warm.look()
    guard = warm.guard_pid
    assert guard is not None
    behave("{}")
    job = world.queue(steps=3)
    run_job(served(world, warm), job.id)
    assert world.get(job).state == "succeeded"
    assert not psutil.pid_exists(guard)


def test_one_that_was_killed_costs_its_job_nothing(world: World, warm: WarmTrainer) -> None:
    waiting(warm).kill()
    job = world.queue(steps=3)
    run_job(served(world, warm), job.id)
    assert world.get(job).state == "succeeded"


def test_a_secret_of_one_job_is_neither_in_what_waits_nor_in_the_next_one(
    tmp_path: Path, behave: Behave, warm: WarmTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_module, "AGAIN_SECONDS", -1.0)
    behave('{"tells_environment": true}')
    told: list[dict[str, str]] = []
    for name, env in (("first", {SECRET: "hush"}), ("second", {})):
        process, workdir = waiting(warm), tmp_path / name
        workdir.mkdir()
        assert SECRET not in process.environ()
        gang = warm.take(plan_in(workdir, env=env))
        assert gang is not None
        with gang:
            found = [event for batch in gang.batches(0.05) for event in batch]
        assert isinstance(found[-1], RunCompleted)
        told.append(json.loads((workdir / "environment.json").read_text()))
    assert [one.get(SECRET) for one in told] == ["hush", None]


def test_it_leaves_when_the_worker_is_gone(warm: WarmTrainer) -> None:
    process = waiting(warm)
    assert warm._waiting is not None
    assert warm._waiting.stdin is not None
    warm._waiting.stdin.close()  # as the kernel does when the worker ends
    wait_until(lambda: is_gone(process), seconds=10)


def test_a_job_of_several_processes_leaves_it_waiting(tmp_path: Path, warm: WarmTrainer) -> None:
    process = waiting(warm)
    assert warm.take(plan_in(tmp_path, processes=2)) is None
    assert not is_gone(process)


def test_none_waits_where_memory_is_short(warm: WarmTrainer) -> None:
    process = waiting(warm)
    warm._least_free_bytes = 2**60
    warm.look()
    assert is_gone(process)
    assert warm.guard_pid is None
    warm.look()
    assert warm.guard_pid is None


@pytest.mark.parametrize(
    ("settings", "queues", "keeps"),
    [
        ({}, ["celery", "attune.datasets"], True),
        ({}, ["celery.large"], True),
        ({}, ["attune.datasets"], False),
        ({"warm_trainer": False}, ["celery"], False),
        ({"trainer_command": "accelerate launch"}, ["celery"], False),
        ({"launcher": "slurm"}, ["celery"], False),
    ],
)
def test_a_worker_keeps_one_that_runs_jobs_here_by_our_own_command(
    settings: dict, queues: list[str], keeps: bool
) -> None:
    given = Settings(**{"warm_trainer": True, **settings})
    assert (warm_trainer(given, queues) is not None) == keeps


def test_one_is_kept_until_the_worker_leaves(warm: WarmTrainer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_module, "LOOK_SECONDS", 0.05)
    leaving = threading.Event()
    thread = threading.Thread(target=warm.keep, args=(leaving,))
    thread.start()
    wait_until(lambda: warm.guard_pid)
    pid = warm.guard_pid
    time.sleep(0.2)
    assert warm.guard_pid == pid, "one is enough"
    leaving.set()
    thread.join(15)
    assert pid is not None
    assert not psutil.pid_exists(pid)
