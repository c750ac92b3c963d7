"""Two processes train one model from the command line, and leave together; `collective/` has what they compute."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from alignment_core.checkpoints import complete, read_manifest, verify
from alignment_core.spec import JobSpec
from tests.alignment_core.tiny import tiny_spec

TRAINING = {"steps": 6, "gradient_accumulation_steps": 2, "learning_rate": 1e-3, "validation_fraction": 0.2}


def start(
    spec: JobSpec,
    workdir: Path,
    cache_dir: Path,
    launcher: list[str],
    program: Sequence[str] = ("-m", "alignment_core"),
) -> subprocess.Popen[str]:
    path = workdir.with_suffix(".json")
    path.write_text(spec.model_dump_json())
    return subprocess.Popen(
        [*launcher, *program, "run", str(path), "--workdir", str(workdir), "--cache-dir", str(cache_dir)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def events_of(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    output, _ = process.communicate(timeout=120)
    return [json.loads(line) for line in output.splitlines()]


TWO = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]


@pytest.mark.slow
def test_two_processes_leave_after_the_same_step(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    training = {**TRAINING, "batch_size": 1, "steps": 100_000}
    spec = tiny_spec(tiny_model, tiny_pairs, training=training, checkpoints={"every": 100_000})
    process = start(spec, tmp_path / "two", cache_dir, TWO)
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("step") == 3:
            break
    os.killpg(process.pid, signal.SIGTERM)
    *_, saved, stopped = events_of(process)
    assert (saved["type"], stopped["type"]) == ("checkpoint_saved", "run_stopped")
    (folder,) = complete(tmp_path / "two" / "checkpoints")
    assert verify(folder).step == stopped["step"] >= 3


SKEWED = """
import os, runpy, sys, time
monotonic, rank = time.monotonic, sys.argv.pop(1)
if os.environ["RANK"] == rank:
    import alignment_core.alignment, alignment_core.training.run_training
    seconds = iter([0.0])  # the run's start; from then on an hour is over
    clock = type("time", (), {"monotonic": lambda: next(seconds, monotonic() + 3600)})
    alignment_core.alignment.time = alignment_core.training.run_training.time = clock
runpy.run_module("alignment_core", run_name="__main__", alter_sys=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "ends_with", "last_step"), [("0", "run_failed", 1), ("1", "run_completed", 3)])
def test_two_processes_are_out_of_time_together_by_the_first_ones_clock(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path, rank: str, ends_with: str, last_step: int
) -> None:
    training = {**TRAINING, "batch_size": 1, "steps": 3}
    resources = {"device": "cpu", "max_run_seconds": 1800}
    spec = tiny_spec(tiny_model, tiny_pairs, training=training, checkpoints={"every": 100}, resources=resources)
    (tmp_path / "skewed.py").write_text(SKEWED)
    *_, last = events_of(start(spec, tmp_path / "two", cache_dir, TWO, [str(tmp_path / "skewed.py"), rank]))
    (folder,) = complete(tmp_path / "two" / "checkpoints")
    assert (last["type"], last["step"], read_manifest(folder).step) == (ends_with, last_step, last_step)
    assert last.get("code") == ("time_limit" if rank == "0" else None)
