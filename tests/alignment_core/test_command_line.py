"""`python -m alignment_core` as a real process: its events, its exit codes, and every way to stop it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file

from alignment_core import align
from alignment_core.checkpoints import complete, folder_of, read_manifest
from alignment_core.commands.outcome import unexpected_failure
from alignment_core.spec import JobSpec
from tests.alignment_core.tiny import UNJUDGED, save_pairs, tiny_spec

Start = Callable[..., subprocess.Popen[str]]

ONE_BATCH = {"batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}
LONG = {**ONE_BATCH, "steps": 40}


@pytest.fixture
def start(tmp_path: Path, cache_dir: Path) -> Iterator[Start]:
    """Start a run of a spec in a work folder of the given name, with more arguments; what is left at the end is killed."""
    processes: list[subprocess.Popen[str]] = []

    def _start(spec: JobSpec, workdir: str, *more: str) -> subprocess.Popen[str]:
        path = tmp_path / f"{workdir}.json"
        path.write_text(spec.model_dump_json())
        command = [sys.executable, "-m", "alignment_core", "run", str(path), "--workdir", str(tmp_path / workdir)]
        with (tmp_path / f"{workdir}.log").open("wb") as log:
            process = subprocess.Popen(
                [*command, "--cache-dir", str(cache_dir), *more],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        processes.append(process)
        return process

    yield _start
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        process.stdout.close()


def read_until(process: subprocess.Popen[str], step: int) -> None:
    """Read events until `step` is completed."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event["type"] == "step_completed" and event["step"] == step:
            return
    raise AssertionError(f"the run ended with {process.wait()} before step {step}")


def rest_of(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    assert process.stdout is not None
    events = [json.loads(line) for line in process.stdout]
    process.wait(timeout=60)
    return events


def test_a_run_prints_events_logs_nothing_alarming_and_exits_with_zero(
    start: Start, tiny_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    process = start(tiny_spec(tiny_model, tiny_pairs), "done")
    events = rest_of(process)
    assert process.returncode == 0
    assert (tmp_path / "done.log").read_text() == ""
    assert events[0]["type"] == "run_started"
    assert events[-1] == {"time": events[-1]["time"], "type": "run_completed", "step": 6}


def test_a_run_that_is_tracked_writes_tensorboards_files_and_tells_of_them(
    start: Start, tiny_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    process = start(tiny_spec(tiny_model, tiny_pairs), "tracked", "--track", "tensorboard")
    events = rest_of(process)
    assert process.returncode == 0
    assert (tmp_path / "tracked.log").read_text() == ""
    written = [tmp_path / "tracked" / one["path"] for one in events if one["type"] == "tracking_file_written"]
    assert events[-1]["type"] == "run_completed"
    losses = {one["step"]: one["metrics"]["loss"] for one in events if one["type"] == "step_completed"}
    (logdir,) = {path.parent for path in written}
    found = EventAccumulator(str(logdir)).Reload()
    assert {one.step: one.value for one in found.Scalars("train/loss")} == pytest.approx(losses)
    assert sorted(losses) == [1, 2, 3, 4, 5, 6]


def terminate(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)


def cut_the_lifeline(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()


@pytest.mark.parametrize("ask", [terminate, cut_the_lifeline])
def test_a_run_that_is_asked_to_leave_saves_its_last_step(
    ask: Callable[[subprocess.Popen[str]], None], start: Start, tiny_model: Path, tiny_pairs: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs, training=LONG, checkpoints={"every": 1000}, evaluation=UNJUDGED)
    process = start(spec, "asked")
    read_until(process, 3)
    ask(process)
    *_, saved, stopped = rest_of(process)
    assert process.returncode == 75
    assert stopped["type"] == "run_stopped"
    assert saved["type"] == "checkpoint_saved"
    assert saved["step"] == stopped["step"] >= 3
    assert read_manifest(tmp_path / "asked" / saved["path"]).step == stopped["step"]


def test_a_killed_run_resumes_bit_for_bit(
    start: Start, tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    training, checkpoints = {**ONE_BATCH, "steps": 16}, {"every": 5}
    spec = tiny_spec(tiny_model, tiny_pairs, training=training, checkpoints=checkpoints, evaluation=UNJUDGED)
    killed = start(spec, "killed")
    read_until(killed, 8)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    resumed = rest_of(start(spec, "killed"))
    assert resumed[0]["resumed_from_step"] in (5, 10, 15)  # later where the kill came late
    list(align(spec, tmp_path / "whole", cache_dir=cache_dir))
    folders = [folder_of(tmp_path / name / "checkpoints", 16) for name in ("whole", "killed")]
    for file in ("pytorch_lora_weights.safetensors", "training_state/optimizer.safetensors"):
        weights = [load_file(folder / file) for folder in folders]
        assert weights[0].keys() == weights[1].keys()
        assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])


def test_a_failed_run_says_why_in_its_last_line(start: Start, tiny_model: Path, tmp_path: Path) -> None:
    process = start(tiny_spec(tiny_model, tmp_path / "missing.parquet"), "failed")
    last = rest_of(process)[-1]
    assert process.returncode == 1
    assert (last["type"], last["code"], last["category"]) == ("run_failed", "missing_file", "user")
    assert "missing.parquet" in last["message"]


def test_a_malformed_spec_names_its_field(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(
        "model: {type: local, path: x}\nmethod: {type: diffusion_dpo, dataset: {type: local, path: y}, beta: -1}\n"
    )
    done = _run("run", str(spec), "--workdir", str(tmp_path / "w"))
    last = json.loads(done.stdout.splitlines()[-1])
    assert done.returncode == 1
    assert last["code"] == "spec_invalid"
    assert "/method/beta: must be greater than 0" in last["message"]
    assert not complete(tmp_path / "w" / "checkpoints")


def test_check_prints_the_preflight_report(tiny_pairs: Path) -> None:
    done = _run("check", str(tiny_pairs))
    assert done.returncode == 0
    assert json.loads(done.stdout)["num_usable_rows"] == 12


def test_check_of_data_that_cannot_be_used_reports_it_and_exits_with_three(tmp_path: Path) -> None:
    path = save_pairs(tmp_path / "pairs.parquet")
    rows = pq.read_table(path).to_pylist()
    rows[4]["chosen"] = b"no image"
    pq.write_table(pa.Table.from_pylist(rows), path)
    done = _run("check", str(path))
    assert done.returncode == 3
    (problem,) = [problem for problem in json.loads(done.stdout)["problems"] if problem["severity"] == "error"]
    assert (problem["code"], problem["rows"]) == ("undecodable_image", [5])


def test_check_of_a_missing_file_fails_with_its_name(tmp_path: Path) -> None:
    done = _run("check", str(tmp_path / "nothing.parquet"))
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == "missing_file"


def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "alignment_core", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("error", "code", "category"),
    [
        (MemoryError(), "out_of_memory", "capacity"),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."), "out_of_memory", "capacity"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "out_of_gpu_memory", "capacity"),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`"), "gpu_failed", "system"),
        (ZeroDivisionError("division by zero"), "internal_error", "system"),
    ],
)  # fmt: skip
def test_a_machine_that_is_too_small_or_broken_is_told_from_a_mistake_of_ours(
    error: Exception, code: str, category: str
) -> None:
    told = unexpected_failure(error, 7)
    assert (told.code, told.category, told.retryable, told.step) == (code, category, True, 7)
    assert "\n" not in told.message
