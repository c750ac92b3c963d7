"""The runs that `scaling.py` times: the demo's model with a LoRA, in this process or in several.

`torchrun --nproc-per-node N -m benchmarks.scaling_runs ROUNDS` is what several run; the first writes its seconds as a line of JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast

import pyarrow.parquet as pq
import torch

from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.events import StepCompleted
from alignment_core.load.accelerator import new_accelerator
from alignment_core.load.run import load_run
from alignment_core.methods.diffusion_dpo import DiffusionDPO
from alignment_core.quiet import silence_imports, silence_progress_bars
from alignment_core.spec import JobSpec
from alignment_core.spec.places import Sources
from alignment_core.timesteps.table import TimestepTally
from alignment_core.training.loop import train
from alignment_core.training.run import Run

ASSETS = Path(__file__).parent.parent / "demo" / "assets"
LOADED_ROWS, BATCH, WARM_UP, ENDLESS = 24, 4, 5, 10**9


@dataclass(frozen=True)
class Seconds:
    """Of steps, one after the other: those that the process computed, and those of the clock."""

    own: list[float]
    by_the_clock: list[float]

    def add(self, took: tuple[float, float]) -> None:
        self.own.append(took[0])
        self.by_the_clock.append(took[1])


def seconds_of(work: Callable[[], object]) -> tuple[float, float]:
    """What it took of the process and of the clock."""
    own, clock = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - own, time.perf_counter() - clock


def loaded_run(folder: Path, processes: int = 1) -> Run:
    """The demo's model, loaded as a run loads it, with a few of its pairs. A step is one micro-batch in each process."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = folder / "pairs.parquet"
    pq.write_table(pq.read_table(ASSETS / "pairs.parquet").slice(0, LOADED_ROWS), pairs)
    spec = JobSpec.model_validate(
        {
            "model": {"type": "local", "path": str(ASSETS / "model")},
            "method": {"type": "diffusion_dpo", "dataset": {"type": "local", "path": str(pairs)}},
            "adapter": {"type": "lora", "rank": 4},
            "training": {
                "start_checks": False,
                "steps": 1,
                "batch_size": 1,
                "gradient_accumulation_steps": 1,
                "learning_rate": 1e-6,
            },
            "resources": {"device": "cpu", "processes": processes},
        }
    )
    spec = spec.resolved("sd")
    loading = load_run(spec, Sources.model_validate({}), new_accelerator(spec), folder / "cache")
    while True:
        try:
            next(loading)
        except StopIteration as end:
            return cast(Run, end.value)


def steps_of(run: Run, batch: int, pairs: PreferencePairs | None = None) -> Iterator[StepCompleted]:
    """Optimiser steps on these pairs, or on the run's own, without end."""
    method = cast(DiffusionDPO, run.method)
    method = replace(method, draws=replace(method.draws, pairs=pairs or method.draws.pairs, batch_size=batch))
    assert method.draws.accumulation == 1, "a step of several micro-batches would be several times what its name says"
    return train(
        actors=run.actors,
        method=method,
        batches=method.batches(run.actors, run.timesteps, 0),
        reference=run.reference,
        timesteps=run.timesteps,
        tally=TimestepTally(run.family.path.num_timesteps),
        optimizer=run.optimizer,
        accelerator=run.accelerator,
        learning_rate_at=lambda step: 1e-6,
        max_grad_norm=1.0,
        first_step=0,
        total_steps=ENDLESS,
    )


def steps_of_processes(count: int, rounds: int) -> Seconds:
    """What a step takes the first of `count` processes, each with a micro-batch of its own."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    command = [sys.executable, *launcher, "-m", "benchmarks.scaling_runs", str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stderr[-4000:]
    return Seconds(**json.loads(done.stdout.splitlines()[-1]))


def _one_process(rounds: int) -> None:
    silence_imports()
    silence_progress_bars()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        run = loaded_run(Path(folder), int(os.environ["WORLD_SIZE"]))
        steps = steps_of(run, BATCH)
        seconds = Seconds([], [])
        for number in range(WARM_UP + rounds):
            took = seconds_of(lambda: next(steps))
            if number >= WARM_UP:
                seconds.add(took)
    if run.ranks.is_first:
        sys.stdout.write(json.dumps(asdict(seconds)) + "\n")
    if run.ranks.count > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    _one_process(int(sys.argv[1]))
