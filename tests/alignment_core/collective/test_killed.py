"""A process of a run is killed: none is left, and the run goes on to the weights of one that nobody disturbed."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

from alignment_core.spec import JobSpec
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
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Done]:
    return in_two(specs_of(tiny_model, tiny_pairs), tmp_path_factory.mktemp("undisturbed"), cache_dir)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "rank"), [("online", 1), ("sharded", 0)])
def test_a_run_goes_on_after_any_of_its_processes_was_killed(
    name: str,
    rank: int,
    undisturbed: dict[str, Done],
    tiny_model: Path,
    tiny_pairs: Path,
    cache_dir: Path,
    tmp_path: Path,
) -> None:
    spec, workdir = specs_of(tiny_model, tiny_pairs)[name], tmp_path / "run"
    launcher = start(spec, workdir, cache_dir, TWO)
    assert launcher.stdout is not None
    for line in launcher.stdout:
        if json.loads(line).get("step") == 5:
            break
    ranks = {rank_of(process): process for process in psutil.Process(launcher.pid).children(recursive=True)}
    os.kill(ranks[str(rank)].pid, signal.SIGKILL)
    events_of(launcher)
    assert launcher.returncode != 0
    assert [process for process in ranks.values() if process.is_running() and process.status() != "zombie"] == []
    resumed = events_of(start(spec, workdir, cache_dir, TWO))
    assert resumed[0]["resumed_from_step"] in range(4, STEPS)
    assert resumed[-1]["type"] == "run_completed"
    done = Done(workdir, resumed)
    assert same_files(done.checkpoint(STEPS), undisturbed[name].checkpoint(STEPS))


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
