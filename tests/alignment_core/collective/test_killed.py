"""A process of a run is killed: none is left, and the run goes on to the weights of one that nobody disturbed."""

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from alignment_core.spec import JobSpec
from tests.alignment_core.collective.pair import Pair
from tests.alignment_core.collective.two import Done, in_two, in_twos, same_files
from tests.alignment_core.rollouts.test_online import METHODS, online_spec
from tests.alignment_core.test_processes import TWO, events_of, start
from tests.alignment_core.tiny import tiny_spec

STEPS = 12


def specs_of(model: Path, pairs: Path) -> dict[str, JobSpec]:
    training = {"steps": STEPS, "batch_size": 2, "gradient_accumulation_steps": 2, "learning_rate": 1e-3}
    without_report = {"evaluation": {}}
    return {
        "online": in_twos(online_spec(model, METHODS["d3po"], training=training, **without_report)),
        "sharded": in_twos(
            tiny_spec(model, pairs, training=training, adapter={"type": "full"}, **without_report), strategy="fsdp2"
        ),
    }


@pytest.fixture(scope="module")
def undisturbed(
    pair: Pair, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Done]:
    return in_two(pair, specs_of(tiny_model, tiny_pairs), tmp_path_factory.mktemp("undisturbed"), cache_dir)


@pytest.mark.slow
def test_a_run_goes_on_after_one_of_its_processes_was_killed(
    undisturbed: dict[str, Done], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec, workdir = specs_of(tiny_model, tiny_pairs)["online"], tmp_path / "run"
    launcher = start(spec, workdir, cache_dir, TWO)
    kill(launcher, rank=1, after_step=5)
    assert_all_end(launcher)
    resumed = events_of(start(spec, workdir, cache_dir, TWO))
    assert resumed[0]["resumed_from_step"] in range(4, STEPS)
    assert resumed[-1]["type"] == "run_completed"
    assert same_files(Done(workdir, resumed).checkpoint(STEPS), undisturbed["online"].checkpoint(STEPS))


def kill(launcher: subprocess.Popen[str], *, rank: int, after_step: int) -> None:
    assert launcher.stdout is not None
    for line in launcher.stdout:
        if json.loads(line).get("step") == after_step:
            break
    for process in psutil.Process(launcher.pid).children(recursive=True):
        if rank_of(process) == str(rank):
            os.kill(process.pid, signal.SIGKILL)


def assert_all_end(launcher: subprocess.Popen[str]) -> None:
    ranks = psutil.Process(launcher.pid).children(recursive=True)
    events_of(launcher)
    assert launcher.returncode != 0
    assert [process for process in ranks if process.is_running() and process.status() != "zombie"] == []


BESIDE = """
import runpy, time
from alignment_core import checkpoints
from alignment_core.training import saving
commit = checkpoints.commit
def held_up(temporary, manifest):
    while manifest.step == 6 and not (temporary.parent.parent / "go").exists():
        time.sleep(0.05)
    return commit(temporary, manifest)
checkpoints.commit, saving.BACKGROUND_BYTES = held_up, 0  # every checkpoint beside the training
runpy.run_module("alignment_core", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
def test_a_kill_amid_a_save_beside_the_training_leaves_the_last_whole_checkpoint(
    pair: Pair, undisturbed: dict[str, Done], tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    """The writer's, with what it wrote; where another is killed, the writer makes whole what it has begun before it ends."""
    spec = specs_of(tiny_model, tiny_pairs)["sharded"]
    (tmp_path / "beside.py").write_text(BESIDE)
    for rank in (0, 1):
        workdir = tmp_path / str(rank)
        launcher = start(spec, workdir, cache_dir, TWO, [str(tmp_path / "beside.py")])
        kill(launcher, rank=rank, after_step=7)  # while the sixth is written
        if rank == 1:
            (workdir / "go").touch()
        assert_all_end(launcher)
    resumed = in_two(pair, {"0": spec, "1": spec}, tmp_path, cache_dir)
    assert [resumed[rank].events[0]["resumed_from_step"] for rank in ("0", "1")] == [4, 6]
    for done in resumed.values():
        assert same_files(done.checkpoint(STEPS), undisturbed["sharded"].checkpoint(STEPS))


def rank_of(process: psutil.Process) -> str | None:
    return process.environ().get("RANK")


@pytest.mark.slow
def test_a_run_that_nobody_listens_to_any_more_ends(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    launcher = start(specs_of(tiny_model, tiny_pairs)["online"], tmp_path / "run", cache_dir, TWO)
    assert launcher.stdout is not None
    launcher.stdout.readline()
    launcher.stdout.close()
    assert launcher.wait(timeout=50) != 0
