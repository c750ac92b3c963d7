"""The contract that every launcher keeps: one gang, rank 0's events, and an end to all of it."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from alignment_core.errors import AlignmentError
from alignment_core.events import Event, StepCompleted
from service.store.clock import host_seconds
from tests.alignment_core.tiny import save_pairs, save_tiny_pipeline, tiny_spec
from tests.worker.conftest import World
from tests.worker.fake_kubernetes import TOKEN, FakeKubernetes
from tests.worker.marked import kill_all_with, pids_with
from worker.guard import EXIT_LEASE_ENDED
from worker.launch import ALONE
from worker.launchers.cluster import ClusterLauncher
from worker.launchers.contract import EXIT_STOPPED, Gang, Launcher, Plan
from worker.launchers.kubeflow import KubeflowEngine, name_of
from worker.launchers.local import LocalLauncher
from worker.launchers.slurm import SlurmEngine
from worker.run import run_job

HERE = Path(__file__).parent
PROGRAM = (sys.executable, "-S", str(HERE / "gang_program.py"))
JOB_ID = "job_01JZZZZZZZZZZZZZZZZZZZZZZZ"
COMMANDS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol")


@dataclass
class Place:
    """Where gangs run in a test: a launcher, and what befalls its gangs."""

    root: Path
    launcher: Launcher
    lose: Callable[[], None]
    take_away: Callable[[], None]
    hold: Callable[[], None]

    def plan(self, behaviour: str, attempt: int = 1, **changes: object) -> Plan:
        workdir = self.root / f"attempt-{attempt}"
        workdir.mkdir(exist_ok=True)
        plan = {
            "job_id": JOB_ID,
            "attempt": attempt,
            "trainer": PROGRAM,
            "arguments": ("3", behaviour),
            "processes": 1,
            "until": host_seconds() + 600,
            "workdir": workdir,
            "grace_seconds": 20.0,
            "env": dict(os.environ),
        }
        return Plan(**{**plan, **changes})  # type: ignore[arg-type]

    def pids(self) -> list[int]:
        """Everything that runs for this test, but itself."""
        return [pid for pid in pids_with("MARK", str(self.root)) if pid != os.getpid()]

    def wait_until_empty(self) -> None:
        deadline = time.monotonic() + 30
        while self.pids():
            assert time.monotonic() < deadline, "something was left"
            time.sleep(0.05)


def nothing() -> None:
    """Of what a host of one's own does not do."""


@pytest.fixture(params=["local", "slurm", "kubeflow"])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("MARK", str(tmp_path))
    monkeypatch.setattr("worker.launchers.cluster.SETTLE_SECONDS", 0.5)
    yield from PLACES[request.param](tmp_path, monkeypatch)
    kill_all_with("MARK", str(tmp_path))


def local(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    place = Place(root, LocalLauncher(), nothing, nothing, nothing)
    place.lose = lambda: [os.kill(pid, signal.SIGKILL) for pid in place.pids()] and None
    yield place


def slurm(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    for folder in ("bin", "slurm"):
        (root / folder).mkdir()
    for command in COMMANDS:  # -S: nothing but the standard library, for the time that each start takes
        script = f'#!/bin/sh\nexec {sys.executable} -S {HERE / "fake_slurm.py"} {command} "$@"\n'
        (root / "bin" / command).write_text(script)
        (root / "bin" / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{root / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_SLURM", str(root / "slurm"))
    engine = SlurmEngine(most_on_a_node=1, poll_seconds=0.2)

    def take_away() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("FAKE_STATE", "PREEMPTED")
            engine.remove(JOB_ID, 1)

    def lose() -> None:
        (root / "slurm" / "1.job").unlink()
        kill_all_with("SLURM_JOB_ID", "1")

    yield Place(root, ClusterLauncher(engine), lose, take_away, lambda: (root / "slurm" / "hold").touch())


def kubeflow(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    (root / "credentials").mkdir()
    (root / "credentials" / "token").write_text(TOKEN + "\n")
    server = FakeKubernetes()
    engine = KubeflowEngine(
        server.url,
        "attune",
        "attune",
        queue="gpus",
        most_on_a_node=1,
        poll_seconds=0.1,
        credentials=root / "credentials",
        python=ALONE[:3],
    )
    name = name_of(JOB_ID, 1)

    def hold() -> None:
        server.holds = True

    yield Place(root, ClusterLauncher(engine), lambda: server.lose(name), lambda: server.suspend(name), hold)
    server.close()


PLACES = {"local": local, "slurm": slurm, "kubeflow": kubeflow}
on_clusters = pytest.mark.parametrize("place", ["slurm", "kubeflow"], indirect=True)


def read(gang: Gang, on_step: Callable[[], None] | None = None) -> list[Event]:
    """All its events; `on_step` is called once, after the first batch with steps."""
    events: list[Event] = []
    for batch in gang.batches(0.05):
        events += batch
        if on_step and events:
            on_step()
            on_step = None
    return events


def steps(events: list[Event]) -> list[int]:
    return [event.step for event in events if isinstance(event, StepCompleted)]


def test_events_arrive_in_order_and_a_success_is_told(place: Place) -> None:
    with place.launcher.start(place.plan("complete")) as gang:
        events = read(gang)
    assert steps(events) == [1, 2, 3]
    assert events[-1].type == "run_completed"
    assert gang.exit_code == 0
    assert "a line of the log" in gang.log.tail()
    place.wait_until_empty()


@pytest.mark.slow
@pytest.mark.parametrize(("behaviour", "code"), [("crash", 3), ("leave", EXIT_STOPPED)])
def test_a_failure_and_a_run_that_may_go_on_elsewhere_are_told_apart(place: Place, behaviour: str, code: int) -> None:
    with place.launcher.start(place.plan(behaviour)) as gang:
        assert steps(read(gang)) == [1, 2, 3]
    assert gang.exit_code == code
    assert not gang.kill_requested


def test_stop_lets_it_save_and_ends_every_rank(place: Place) -> None:
    with place.launcher.start(place.plan("go_on")) as gang:
        events = read(gang, on_step=gang.stop)
    assert events[-1].type == "run_stopped"
    assert gang.exit_code == EXIT_STOPPED
    assert not gang.kill_requested
    assert place.pids() == []


@pytest.mark.slow
def test_ranks_that_ignore_the_stop_are_killed_after_the_grace_time(place: Place) -> None:
    with place.launcher.start(place.plan("deaf", grace_seconds=0.3)) as gang:
        read(gang, on_step=gang.stop)
    assert gang.kill_requested
    assert place.pids() == []


def test_a_gang_that_is_gone_is_noticed(place: Place) -> None:
    with place.launcher.start(place.plan("go_on")) as gang:
        read(gang, on_step=place.lose)
    assert gang.exit_code not in (0, EXIT_STOPPED, None)
    assert not gang.kill_requested


@pytest.mark.slow
def test_leaving_the_block_early_leaves_nothing_behind(place: Place) -> None:
    with place.launcher.start(place.plan("go_on")) as gang:
        next(batch for batch in gang.batches(0.05) if batch)
    assert place.pids() == []


@pytest.mark.slow
def test_without_a_beat_it_ends_with_its_lease(place: Place) -> None:
    with place.launcher.start(place.plan("deaf", until=host_seconds() + 600)) as gang:
        read(gang, on_step=lambda: gang.beat(host_seconds() - 1))
    assert gang.exit_code == EXIT_LEASE_ENDED
    assert place.pids() == []


@on_clusters
def test_an_orphan_of_a_lost_worker_is_ended_and_a_later_attempt_is_not(place: Place) -> None:
    orphan = place.launcher.start(place.plan("go_on", attempt=1))  # nobody reads it any more: its worker is lost
    with place.launcher.start(place.plan("go_on", attempt=2)) as gang:
        read(orphan, on_step=lambda: place.launcher.end_orphans(JOB_ID, 2))
        assert orphan.exit_code == EXIT_STOPPED
        assert not orphan.kill_requested
        place.launcher.end_orphans(JOB_ID, 1)  # by a worker that does not know yet that it is lost
        assert read(gang, on_step=gang.stop)[-1].type == "run_stopped"
    assert place.pids() == []


@pytest.mark.slow
@on_clusters
def test_a_gang_that_its_engine_takes_away_may_go_on_elsewhere(place: Place) -> None:
    with place.launcher.start(place.plan("deaf")) as gang:
        read(gang, on_step=place.take_away)
    assert gang.exit_code == EXIT_STOPPED
    assert not gang.stop_requested
    assert place.pids() == []


@pytest.mark.slow
@on_clusters
def test_a_stop_does_not_wait_for_a_place_in_the_engines_queue(place: Place) -> None:
    place.hold()
    with place.launcher.start(place.plan("go_on")) as gang:
        gang.stop()
        assert read(gang) == []
    assert gang.exit_code == EXIT_STOPPED
    assert not gang.kill_requested


def test_slurms_refusal_names_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place,) = slurm(tmp_path, monkeypatch)
    launcher = ClusterLauncher(SlurmEngine(("--partition=nowhere",)))
    with pytest.raises(AlignmentError, match="invalid partition specified: nowhere"):
        launcher.start(place.plan("complete"))


def test_kubernetes_refusal_names_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in kubeflow(tmp_path, monkeypatch):
        (place.root / "credentials" / "token").write_text("another")
        with pytest.raises(AlignmentError, match="401: Unauthorized"):
            place.launcher.start(place.plan("complete"))


@pytest.mark.slow
def test_a_real_training_of_two_processes_runs_to_its_end(place: Place) -> None:
    """On one host by torchrun; on the clusters over two nodes that meet at the first one's address."""
    model, pairs = save_tiny_pipeline(place.root), save_pairs(place.root / "tiny.parquet")
    training = {"steps": 2, "batch_size": 1, "learning_rate": 1e-3}
    in_two = {"processes": 2, "device": "cpu"}
    spec = tiny_spec(model, pairs, training=training, resources=in_two, evaluation={"prompts": ["a"]})
    (place.root / "spec.json").write_text(spec.model_dump_json())
    workdir = place.root / "attempt-1"
    folders = ("--workdir", str(workdir), "--cache-dir", str(place.root / "cache"))
    arguments = ("run", str(place.root / "spec.json"), *folders)
    with place.launcher.start(place.plan("", trainer=ALONE, arguments=arguments, processes=2)) as gang:
        events = read(gang)
    assert [event.step for event in events if isinstance(event, StepCompleted)] == [1, 2], gang.log.tail()
    assert events[-1].type == "run_completed"
    assert gang.exit_code == 0
    assert list((workdir / "checkpoints").glob("step-*/manifest.json"))
    place.wait_until_empty()


@on_clusters
def test_a_job_goes_through_a_cluster_as_through_a_host(place: Place, world: World) -> None:
    job = world.queue()
    worker = replace(world.worker(), launcher=place.launcher)
    run_job(worker, job.id)
    ended = world.get(job)
    assert (ended.state, ended.attempt, ended.progress.percent) == ("succeeded", 1, 100)
    assert place.pids() == []
