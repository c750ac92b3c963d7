"""The training process is started, watched and stopped, and nothing of it is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from alignment_core.events import Event, RunStopped, StepCompleted
from alignment_core.spec import DiffusionDPOSpec, JobSpec, LocalDataset, LocalSource, TrainingSpec
from service.store.clock import host_seconds
from worker.guard import EXIT_LEASE_ENDED
from worker.process import LineBuffer, TrainingProcess, guarded

TRAINER = Path(__file__).parent / "trainer_process.py"


def command_in(workdir: Path, steps: int) -> list[str]:
    spec = JobSpec(
        model=LocalSource(path="model"),
        method=DiffusionDPOSpec(dataset=LocalDataset(path="pairs")),
        training=TrainingSpec(steps=steps),
    )
    (workdir / "spec.json").write_text(spec.model_dump_json())
    run = ["run", str(workdir / "spec.json"), "--workdir", str(workdir), "--cache-dir", str(workdir / "cache")]
    return [sys.executable, str(TRAINER), *run]


def start(
    workdir: Path,
    behaviour: str = "{}",
    steps: int = 2000,
    grace_seconds: float = 10,
    lease_seconds: float = 60,
) -> TrainingProcess:
    env = os.environ | {"TRAINER_BEHAVIOUR": behaviour, "MARK": str(workdir)}
    guard = guarded(command_in(workdir, steps), until=host_seconds() + lease_seconds, cwd=workdir, env=env)
    return TrainingProcess(guard, log_path=workdir / "trainer.log", grace_seconds=grace_seconds)


def read(process: TrainingProcess, on_step: Callable[[], None] | None = None) -> list[Event]:
    """All its events; `on_step` is called once, after the first step."""
    events: list[Event] = []
    for batch in process.batches(0.02):
        events += batch
        if on_step and any(isinstance(event, StepCompleted) for event in events):
            on_step()
            on_step = None
    return events


def processes_of(workdir: Path) -> list[psutil.Process]:
    """What runs on behalf of the training in this folder: the guard, the training, and children that carry its mark."""
    return [process for process in psutil.process_iter() if is_alive_for(process, workdir)]


def is_alive_for(process: psutil.Process, workdir: Path) -> bool:
    try:
        is_marked = process.environ().get("MARK") == str(workdir)
        return is_marked and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False


def wait_until(condition: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_a_log_without_room_costs_lines_and_not_the_run(tmp_path: Path, small_disk: Path) -> None:
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    program = "import sys; [print('x' * 200, file=sys.stderr) for _ in range(5000)]; print('done', file=sys.stderr)"
    log_path = small_disk / "trainer.log"
    command = [sys.executable, "-c", program]
    guard = guarded(command, until=float("inf"), cwd=tmp_path, env=os.environ)
    with TrainingProcess(guard, log_path=log_path, grace_seconds=10) as process:
        assert read(process) == []
    assert process.exit_code == 0
    assert process.log.tail(1) == "done", "the end of it is in memory"


def test_events_arrive_in_order_and_the_log_beside_them(tmp_path: Path) -> None:
    with start(tmp_path, steps=5) as process:
        events = read(process)
    assert [event.step for event in events if isinstance(event, StepCompleted)] == [1, 2, 3, 4, 5]
    assert events[-1].type == "run_completed"
    assert process.exit_code == 0
    assert process.log.tail() == "log: starting at step 0"
    assert (tmp_path / "trainer.log").read_text() == "log: starting at step 0\n"


def test_lines_that_are_no_event_become_log_lines(tmp_path: Path) -> None:
    with start(tmp_path, '{"at_step": 2, "event": "garbage"}', steps=3) as process:
        events = read(process)
    assert events[-1].type == "run_completed"
    assert "stdout: no event" in process.log.tail()
    assert 'stdout: {"type": "unknown"}' in process.log.tail()


def test_an_endless_line_is_cut_and_the_next_event_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.process.MAX_LINE_BYTES", 10_000)
    behaviour = '{"at_step": 2, "event": "garbage", "num_garbage_bytes": 3000000}'
    with start(tmp_path, behaviour, steps=3) as process:
        events = read(process)
    assert [event.step for event in events if isinstance(event, StepCompleted)] == [1, 2, 3]
    assert (tmp_path / "trainer.log").stat().st_size < 20_000


def test_stop_lets_it_save_and_leave(tmp_path: Path) -> None:
    with start(tmp_path) as process:
        events = read(process, on_step=process.stop)
    assert isinstance(events[-1], RunStopped)
    assert process.exit_code == 75
    assert not process.kill_requested
    assert (tmp_path / "checkpoints" / f"step-{events[-1].step:08d}" / "manifest.json").exists()


def test_a_process_that_ignores_the_stop_is_killed_after_the_grace_time(tmp_path: Path) -> None:
    with start(tmp_path, '{"deaf": true}', grace_seconds=0.3) as process:
        read(process, on_step=process.stop)
    assert process.kill_requested
    assert process.exit_code == -signal.SIGKILL


def test_the_children_of_a_killed_process_are_ended_too(tmp_path: Path) -> None:
    with start(tmp_path, '{"child": ["sleep", "600"], "at_step": 3, "event": "kill"}') as process:
        read(process)
    assert process.exit_code == -signal.SIGKILL
    assert not process.kill_requested
    assert processes_of(tmp_path) == []


def test_leaving_the_block_early_leaves_nothing_behind(tmp_path: Path) -> None:
    with start(tmp_path, '{"child": ["sleep", "600"]}') as process:
        next(batch for batch in process.batches(0.02) if batch)
    assert process.exit_code == -signal.SIGKILL
    assert processes_of(tmp_path) == []


IN_A_SESSION_OF_ITS_OWN = '{"child": ["setsid", "--fork", "sleep", "600"], "step_seconds": 0.05}'


def test_children_in_sessions_of_their_own_are_ended_too(tmp_path: Path) -> None:
    with start(tmp_path, IN_A_SESSION_OF_ITS_OWN) as process:
        read(process, on_step=process.kill)
    assert process.exit_code == -signal.SIGKILL
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("behaviour", [IN_A_SESSION_OF_ITS_OWN, '{"at_step": 2, "event": "hang"}', '{"deaf": true}'])
def test_without_a_beat_everything_is_ended_by_the_time_that_was_said(tmp_path: Path, behaviour: str) -> None:
    with start(tmp_path, behaviour, steps=100_000, lease_seconds=1.5) as process:
        read(process)
        assert processes_of(tmp_path) == []
    assert process.exit_code == EXIT_LEASE_ENDED
    assert not process.kill_requested


def test_beats_keep_it_running_and_one_that_comes_late_lengthens_nothing(tmp_path: Path) -> None:
    with start(tmp_path, steps=100_000, lease_seconds=60) as process:
        process.beat(host_seconds() + 3600)
        assert any(isinstance(event, StepCompleted) for batch in until_a_step(process) for event in batch)
        process.beat(host_seconds() - 1)  # of a worker that stood still between the renewal and the beat
        read(process)
    assert process.exit_code == EXIT_LEASE_ENDED


def until_a_step(process: TrainingProcess) -> Iterator[list[Event]]:
    for batch in process.batches(0.02):
        yield batch
        if any(isinstance(event, StepCompleted) for event in batch):
            return


def test_a_lease_that_has_ended_starts_nothing(tmp_path: Path) -> None:
    with start(tmp_path, lease_seconds=-1) as process:
        assert read(process) == []
    assert process.exit_code == EXIT_LEASE_ENDED


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_guard_that_is_killed_or_stopped_lets_nothing_live(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.process.EXIT_SECONDS", 0.5)
    with start(tmp_path, '{"step_seconds": 0.05, "deaf": true}') as process:
        next(batch for batch in process.batches(0.02) if batch)
        os.kill(process.pid, number)
    wait_until(lambda: not processes_of(tmp_path))


WORKER = """
import os, sys
from pathlib import Path
from tests.worker.test_process import start
with start(Path(sys.argv[1]), sys.argv[2]) as process:
    print(process.pid, flush=True)
    for batch in process.batches(0.02):
        pass
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("behaviour", ["{}", '{"child": ["cat"]}'], ids=["alone", "with a child that reads stdin"])
def test_a_lost_worker_leaves_no_training_process(tmp_path: Path, number: signal.Signals, behaviour: str) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, str(tmp_path), behaviour], stdout=subprocess.PIPE, text=True
    )
    assert worker.stdout is not None
    worker.stdout.readline()
    wait_until(lambda: (tmp_path / "trainer.log").exists() and (tmp_path / "trainer.log").stat().st_size)
    worker.send_signal(number)
    worker.wait()
    worker.stdout.close()
    wait_until(lambda: not processes_of(tmp_path))
    assert list((tmp_path / "checkpoints").glob("step-*/manifest.json")), "it saved before it left"


def test_the_log_file_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worker.process.MAX_LOG_BYTES", 150)
    behaviour = '{"at_step": 2, "event": "garbage"}'
    with start(tmp_path, behaviour, steps=3) as process:
        read(process)
    assert (tmp_path / "trainer.log").stat().st_size <= 150
    assert (tmp_path / "trainer.log.1").exists()


def test_lines_split_over_reads_are_put_together() -> None:
    lines = LineBuffer(limit=5)
    assert lines.feed(b"ab") == []
    assert lines.feed(b"c\nabcdefg") == [b"abc"]
    assert lines.feed(b"hij\nxy\n\nz") == [b"abcde", b"xy", b""]
    assert lines.flush() == [b"z"]
    assert lines.flush() == []
