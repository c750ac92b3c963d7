"""What a step takes against rows, batch and latent size: `python -m benchmarks.scaling`.

A LoRA step of Diffusion-DPO on the demo's denoiser, whole: indices, reading, draws, forward, backward, optimiser. All sizes
take turns, a step each, on the same weights; ratios are medians over the rounds. Writes `scaling.json` and `scaling.svg`.
"""

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, cast

import pyarrow.parquet as pq
import torch

from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.load.accelerator import new_accelerator
from alignment_core.load.run import load_run
from alignment_core.methods.diffusion_dpo import DiffusionDPO
from alignment_core.spec import JobSpec
from alignment_core.spec.places import Sources
from alignment_core.timesteps.table import TimestepTally
from alignment_core.training.loop import train
from alignment_core.training.run import Run
from benchmarks.speed import DOCS, paired_ratio, save
from benchmarks.speed_plot import draw_scaling
from benchmarks.synthetic_pairs import synthetic_pairs

ASSETS = Path(__file__).parent.parent / "demo" / "assets"
ROWS, MOST_ROWS = (1_000, 10_000, 100_000), 1_000_000
BATCHES, SIDES = (1, 2, 4, 8, 16), (1, 2, 4)
BATCH, WARM_UP, ENDLESS = 4, 5, 10**9
LOADED_ROWS = 24


def main() -> None:
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    rows = (*ROWS, MOST_ROWS) if arguments.million else ROWS
    with tempfile.TemporaryDirectory() as folder:
        found = measured(rows, arguments.rounds, Path(folder))
    save(found, arguments.docs / "scaling.json")
    draw_scaling(found, arguments.docs / "scaling.svg")
    for line in lines_of(found):
        sys.stdout.write(line + "\n")


def measured(rows: Sequence[int], rounds: int, folder: Path) -> dict[str, Any]:
    """Milliseconds a step, ratios, and kilobytes of memory a row."""
    run = _loaded(folder)
    shape = run.family.latent_shape(run.family.resolution)
    sets: dict[int, PreferencePairs] = {}
    kilobytes: dict[int, float] = {}
    for num in rows:
        before = _own_memory()
        sets[num] = _pairs(run, num, shape, folder)
        kilobytes[num] = round((_own_memory() - before) / num, 2)
    some = sets[rows[0]]
    by_rows = _take_turns({str(num): _steps(run, pairs, BATCH) for num, pairs in sets.items()}, rounds)
    by_batch = _take_turns({str(size): _steps(run, some, size) for size in BATCHES}, rounds)
    sides = {side: (shape[0], shape[1] * side, shape[2] * side) for side in SIDES}
    grown = {str(of[-1]): _pairs(run, rows[0], of, folder) for of in sides.values()}
    by_side = _take_turns({side: _steps(run, pairs, BATCH) for side, pairs in grown.items()}, rounds)
    return {
        "rounds": rounds,
        "batch": BATCH,
        "rows": {**_figures(by_rows), "kilobytes_a_row": {str(num): value for num, value in kilobytes.items()}},
        "micro_batch": _figures(by_batch),
        "latent_side": _figures(by_side),
    }


def lines_of(found: Mapping[str, Any]) -> Iterator[str]:
    """A line a figure, against the first of its kind."""
    for kind in ("rows", "micro_batch", "latent_side"):
        for name, milliseconds in found[kind]["milliseconds"].items():
            yield f"{kind} {name}: {milliseconds:.2f} ms a step, {found[kind]['ratios'][name]:.3f} times the first"


def _loaded(folder: Path) -> Run:
    pairs = folder / "pairs.parquet"
    pq.write_table(pq.read_table(ASSETS / "pairs.parquet").slice(0, LOADED_ROWS), pairs)
    spec = JobSpec.model_validate(
        {
            "model": {"type": "local", "path": str(ASSETS / "model")},
            "method": {"type": "diffusion_dpo", "dataset": {"type": "local", "path": str(pairs)}},
            "adapter": {"type": "lora", "rank": 4},
            "training": {"steps": 1, "batch_size": 1, "learning_rate": 1e-6},
            "resources": {"device": "cpu"},
        }
    )
    spec = spec.resolved("sd")
    loading = load_run(spec, Sources.model_validate({}), new_accelerator(spec), folder / "cache")
    while True:
        try:
            next(loading)
        except StopIteration as end:
            return cast(Run, end.value)


def _pairs(run: Run, num: int, shape: tuple[int, int, int], folder: Path) -> PreferencePairs:
    return synthetic_pairs(num, shape, run.family.encode_empty(), folder / "latents")


def _steps(run: Run, pairs: PreferencePairs, batch: int) -> Iterator[object]:
    """Optimiser steps on these pairs, without end."""
    method = cast(DiffusionDPO, run.method)
    method = replace(method, draws=replace(method.draws, pairs=pairs, batch_size=batch, accumulation=1))
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


def _take_turns(steps: Mapping[str, Iterator[object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of a step of each, round by round, each round in another order."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    for number in range(WARM_UP + rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            began = time.perf_counter()
            next(steps[name])
            if number >= WARM_UP:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def _figures(seconds: Mapping[str, Sequence[float]]) -> dict[str, dict[str, float]]:
    first = next(iter(seconds.values()))
    return {
        "milliseconds": {name: round(1000 * median(of), 3) for name, of in seconds.items()},
        "ratios": {name: round(paired_ratio(of, first), 4) for name, of in seconds.items()},
    }


def _own_memory() -> float:
    """Kilobytes of this process that are in no file; NaN where the system does not say."""
    gc.collect()
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return float(line.split()[1])
    return float("nan")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100, help="steps of each size (default 100)")
    parser.add_argument("--million", action="store_true", help="10^6 rows too: some 4 GiB of disk and minutes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--docs", type=Path, default=DOCS, help="where figures and plot are written")
    return parser


if __name__ == "__main__":
    main()
