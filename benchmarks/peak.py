"""Pairs a second and the peak of memory of Attune's step alone, against the estimate: `python -m benchmarks.peak --size sdxl --adapter full`.

For settings that the plain implementation of `train_step` has no room for on one card: SDXL in full, small optimisers, gradient checkpointing,
every micro-batch. On a GPU the peak is what was allocated; on a CPU (`--size tiny-sdxl`) every tensor is counted. Random weights, Diffusion-DPO.
Prints a line for each micro-batch and writes JSON and a plot.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from alignment_core.costs.memory import memory_of
from alignment_core.model_files import read_model_files
from alignment_core.spec import JobSpec
from benchmarks.estimate_plot import draw_peak
from benchmarks.memory import GIB
from benchmarks.speed import save
from benchmarks.step.cases import Case, load, spec_of, steps_of
from benchmarks.step.measuring import Seconds, clock, peak_of_turns
from benchmarks.step.random_models import save_model, save_pairs
from benchmarks.step.sizes import SIZES

WARM, TIMED = 2, 5  # steps


def main() -> None:
    arguments = _parser().parse_args()
    torch.set_num_threads(1)
    if arguments.folder is not None:
        sys.stdout.write(json.dumps(measured(arguments, arguments.folder, arguments.batch[0])) + "\n")
        return
    size, results = SIZES[arguments.size], []
    with tempfile.TemporaryDirectory() as folder:
        save_model(size, Path(folder) / "model")
        save_pairs(size, Path(folder) / "pairs.parquet", num_pairs=max(arguments.batch))
        for batch in arguments.batch:
            results.append(_in_a_process(batch, folder))
            sys.stdout.write(f"{json.dumps(results[-1])}\n")
            sys.stdout.flush()
            report = {"size": arguments.size, "results": results}
            save(report, arguments.out.with_suffix(".json"))
            draw_peak(report, arguments.out.with_suffix(".svg"))


def asked(arguments: argparse.Namespace, folder: Path, batch: int) -> JobSpec:
    """The spec of a step of one micro-batch."""
    case = Case("diffusion_dpo", "diffusion_dpo", is_full=arguments.adapter == "full")
    spec = spec_of(case, SIZES[arguments.size], folder / "model", folder / "pairs.parquet", arguments.precision)
    written = spec.model_dump(mode="json")
    written["training"] |= {
        "batch_size": batch,
        "optimizer": arguments.optimizer,
        "gradient_checkpointing": arguments.checkpointing,
    }
    written["resources"]["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    return JobSpec.model_validate(written)


def measured(arguments: argparse.Namespace, folder: Path, batch: int) -> dict[str, Any]:
    """Of this process, which has nothing else in memory."""
    spec = asked(arguments, folder, batch)
    run = load(spec, folder / "cache")
    if arguments.compile:
        run.actors.compile_with()
    steps = steps_of(run)
    with run.actors.compiled():
        for _ in range(WARM):
            next(steps)
        taken = []
        for _ in range(TIMED):
            began = clock()
            next(steps)
            taken.append(clock() - began)
        peak = peak_of_turns(lambda: next(steps), 1)
    report = read_model_files(folder / "model")
    assert report.family is not None
    found = memory_of(spec.resolved(report.family), report, report.family, is_half=arguments.precision != "fp32")
    assert found is not None
    seconds = Seconds.of(taken)
    return {
        "adapter": arguments.adapter,
        "precision": arguments.precision,
        "optimizer": arguments.optimizer,
        "gradient_checkpointing": arguments.checkpointing,
        "compile": arguments.compile,
        "batch_size": batch,
        "pairs_per_second": round(batch / seconds.median, 3),
        "seconds": vars(seconds),
        "peak_gib": round(peak.tensors / GIB, 4),
        "estimated_gib": found.peak_gib,
        "ratio": round(found.peak_gib * GIB / peak.tensors, 3),
    }


def _in_a_process(batch: int, folder: str) -> dict[str, Any]:
    """The same command for one micro-batch, which overrides those given before; what runs out of memory says so, and the others go on."""
    command = [sys.executable, "-m", "benchmarks.peak", *sys.argv[1:], "--batch", str(batch), "--folder", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return json.loads(done.stdout.splitlines()[-1])
    return {"batch_size": batch, "failed": (done.stderr.splitlines() or ["no word"])[-1][:300]}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--adapter", choices=["lora", "full"], default="lora")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32")
    parser.add_argument("--optimizer", choices=["adamw", "adamw_8bit", "adafactor"], default="adamw")
    parser.add_argument("--checkpointing", action="store_true", help="as by `training.gradient_checkpointing`")
    parser.add_argument("--compile", action="store_true", help="as by `training.compile: on`")
    parser.add_argument(
        "--batch", type=int, nargs="+", default=[1, 4], help="pairs of a micro-batch, one after the other"
    )
    parser.add_argument("--out", type=Path, default=Path("build/peak"), help="where .json and .svg are written")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
