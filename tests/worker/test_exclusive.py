"""Never two trainings of one job at once: when another worker can have it, nothing of the attempt before lives.

Workers are processes here, killed and stopped while their training hangs or goes on; ranks are real, under torchrun.
"""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from alignment_core.spec import JobSpec
from service.store import jobs, leases
from service.store.projects import DEFAULT_PROJECT_ID
from service.store.records.jobs import JobRecord
from tests.alignment_core.tiny import save_pairs, save_tiny_pipeline, tiny_spec
from tests.worker.conftest import World
from tests.worker.test_run import Behave, steps_trained, wait_until
from worker.run import run_job

StartWorker = Callable[..., subprocess.Popen[bytes]]
ROOT = Path(__file__).parents[2]
WORKER = "tests.worker.worker_process"


@pytest.fixture
def start_worker(world: World) -> Iterator[StartWorker]:
    workers: list[subprocess.Popen[bytes]] = []

    def _start(job: JobRecord, name: str, *trainer: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", WORKER, str(world.root), job.id, name, *trainer]
        workers.append(subprocess.Popen(command, cwd=ROOT, env=os.environ | {"MARK": name}, start_new_session=True))
        return workers[-1]

    yield _start
    for worker in workers:
        worker.kill()
        worker.wait()


def trainers_of(name: str) -> list[psutil.Process]:
    """What lives and was started by the worker of this name: its guard, launcher, ranks and their children."""
    return [process for process in psutil.process_iter() if _is_trainer_of(process, name)]


def _is_trainer_of(process: psutil.Process, name: str) -> bool:
    try:
        is_alive = process.status() != psutil.STATUS_ZOMBIE and process.environ().get("MARK") == name
        return is_alive and WORKER not in process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def stop(world: World, worker: subprocess.Popen[bytes], number: signal.Signals = signal.SIGSTOP) -> None:
    """Send the signal while the worker holds no lock of SQLite's, which nobody could take from a process that stands still."""
    with world.store.write() as session:
        session.connection()  # the transaction, and with it the lock, begins with its first use
        worker.send_signal(number)
        wait_until(lambda: states_of_threads(worker.pid) <= {"T", "Z"})  # one in a system call stops at its end


def states_of_threads(pid: int) -> set[str]:
    states = set()
    for path in Path(f"/proc/{pid}/task").glob("*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            states.add(path.read_text().rpartition(")")[2].split()[0])
    return states


def sweep_until_requeued(world: World, job: JobRecord, seconds: float = 30) -> None:
    """Sweep as often as can be, so that the job is free as soon as a lease lets it be."""
    wait_until(lambda: job.id in leases.requeue_lost(world.store, max_attempts=10).requeued, seconds)


HUNG = '{"at_step": 3, "event": "hang", "step_seconds": 0.05}'
LONG = '{"deaf": true, "step_seconds": 0.05}'


@pytest.mark.parametrize(
    ("behaviour", "number"),
    [
        pytest.param(HUNG, signal.SIGSTOP, id="hung, worker stopped"),
        pytest.param(HUNG, signal.SIGKILL, id="hung, worker killed"),
        pytest.param(LONG, signal.SIGKILL, id="deaf, worker killed", marks=pytest.mark.slow),
        pytest.param(LONG, signal.SIGSTOP, id="deaf, worker stopped", marks=pytest.mark.slow),
    ],
)
def test_no_training_lives_when_another_worker_may_have_the_job(
    world: World, behave: Behave, start_worker: StartWorker, behaviour: str, number: signal.Signals
) -> None:
    behave(behaviour)
    job = world.queue(steps=2000, every=1000)
    worker = start_worker(job, f"first-{job.id}")
    wait_until(lambda: world.get(job).progress.step >= 2)
    stop(world, worker, number)
    sweep_until_requeued(world, job)
    assert trainers_of(f"first-{job.id}") == []


def test_a_worker_that_wakes_up_behind_its_lease_changes_nothing(
    world: World, behave: Behave, start_worker: StartWorker
) -> None:
    behave('{"step_seconds": 0.05}')
    job = world.queue(steps=60, every=4)
    worker = start_worker(job, f"stopped-{job.id}")
    wait_until(lambda: world.get(job).latest_checkpoint_id)
    stop(world, worker)
    sweep_until_requeued(world, job)
    assert trainers_of(f"stopped-{job.id}") == []
    claim = leases.claim(world.store, job.id, "second", 60)
    assert claim is not None
    worker.send_signal(signal.SIGCONT)
    assert worker.wait(30) == 0
    assert (world.get(job).attempt, world.get(job).state) == (2, "starting")
    leases.give_back(world.store, job.id, claim.attempt)
    behave("{}")
    run_job(world.worker("third"), job.id)
    assert world.get(job).state == "succeeded"
    assert sorted(set(steps_trained(world, job))) == list(range(1, 61))


@pytest.mark.slow
def test_a_worker_that_wakes_up_before_any_sweep_gives_the_job_back(
    world: World, behave: Behave, start_worker: StartWorker
) -> None:
    behave('{"step_seconds": 0.05}')
    job = world.queue(steps=2000, every=1000)
    name = f"stopped-{job.id}"
    worker = start_worker(job, name)
    wait_until(lambda: world.get(job).progress.step >= 2)
    stop(world, worker)
    wait_until(lambda: not trainers_of(name))
    worker.send_signal(signal.SIGCONT)
    assert worker.wait(30) == 0
    assert (world.get(job).state, world.get(job).error) == ("queued", None)


# --- the real trainer ----------------------------------------------------------------------------------------------

ONE = f"{sys.executable} -P -m alignment_core"
TWO = f"{sys.executable} -m torch.distributed.run --nproc_per_node 2 -m alignment_core"


def queue_a_long_step(world: World) -> JobRecord:
    """A job whose optimiser step takes longer than any test: nothing looks at a stop flag within it."""
    model, pairs = save_tiny_pipeline(world.root), save_pairs(world.root / "tiny.parquet")
    training = {"steps": 2, "batch_size": 1, "gradient_accumulation_steps": 65_536, "learning_rate": 1e-3}
    spec: JobSpec = tiny_spec(model, pairs, training=training)
    return jobs.create(world.store, project_id=DEFAULT_PROJECT_ID, spec=spec)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.parametrize(("trainer", "num_ranks"), [(ONE, 1), (TWO, 2)], ids=["one process", "two ranks"])
def test_no_rank_of_the_real_trainer_outlives_the_lease(
    world: World, start_worker: StartWorker, number: signal.Signals, trainer: str, num_ranks: int
) -> None:
    job = queue_a_long_step(world)
    name = f"real-{job.id}"
    worker = start_worker(job, name, trainer)
    wait_until(lambda: world.get(job).phase == "training", 120)
    ranks = [
        one for one in trainers_of(name) if "run" in one.cmdline() and "torch.distributed.run" not in one.cmdline()
    ]
    assert sum("worker.guard" not in one.cmdline() for one in ranks) == num_ranks
    stop(world, worker, number)
    sweep_until_requeued(world, job)
    assert trainers_of(name) == []


@pytest.mark.slow
def test_no_rank_outlives_its_launcher_without_a_server(tmp_path: Path) -> None:
    model, pairs = save_tiny_pipeline(tmp_path), save_pairs(tmp_path / "tiny.parquet")
    training = {"steps": 2, "batch_size": 1, "gradient_accumulation_steps": 65_536, "learning_rate": 1e-3}
    (tmp_path / "spec.json").write_text(tiny_spec(model, pairs, training=training).model_dump_json())
    arguments = ["run", str(tmp_path / "spec.json"), "--workdir", str(tmp_path / "w"), "--cache-dir", str(tmp_path)]
    with subprocess.Popen(
        [*shlex.split(TWO), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env=os.environ | {"MARK": str(tmp_path)},
    ) as launcher:
        try:
            assert launcher.stdout is not None
            next(line for line in launcher.stdout if b'"training"' in line)
            assert len(trainers_of(str(tmp_path))) >= 3
        finally:
            launcher.kill()
    wait_until(lambda: not trainers_of(str(tmp_path)), 5)
