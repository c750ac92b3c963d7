"""What a step takes against rows, batch, latent size and processes: `python -m benchmarks.scaling`.

A LoRA step of Diffusion-DPO on the demo's denoiser, whole: indices, reading, draws, forward, backward, optimiser. All sizes
take turns, a step each, on the same weights; ratios are medians over the rounds, of the process's own seconds, as a busy machine
spoils all others (those of the clock are beside them). Writes `scaling.json` and `scaling.svg`, and fails where a step's time
depends on how many rows there are.
"""

import argparse
import gc
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

import torch

from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.training.run import Run
from benchmarks.scaling_runs import Seconds, loaded_run, seconds_of, steps_of, steps_of_processes
from benchmarks.speed import DOCS, paired_ratio, save
from benchmarks.speed_plot import draw_scaling
from benchmarks.synthetic_pairs import synthetic_pairs

ROWS, MOST_ROWS = (1_000, 10_000, 100_000), 1_000_000
BATCHES, SIDES, PROCESSES = (1, 2, 4, 8, 16), (1, 2, 4), (1, 2)
BATCH, WARM_UP, ENDLESS = 4, 5, 10**9
MOST_FOR_ROWS = 1.05  # times a step on the fewest rows
LESS_ROUNDS = 5  # batches and latents differ by whole factors, which a fifth of the rounds shows


def main() -> None:
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    rows = (*ROWS, MOST_ROWS) if arguments.million else ROWS
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = {"rounds": arguments.rounds, "batch": BATCH}
        for name, figures in measured(rows, arguments.rounds, Path(folder)):
            found[name] = figures
            for line in lines_of(name, figures):
                sys.stdout.write(line + "\n")
                sys.stdout.flush()
    save(found, arguments.docs / "scaling.json")
    draw_scaling(found, arguments.docs / "scaling.svg")
    if grown := grown_with_rows(found["rows"]):
        sys.exit(f"a step's time grows with the rows: {grown} times that of {rows[0]}, where {MOST_FOR_ROWS} is borne")


def measured(rows: Sequence[int], rounds: int, folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The figures of each axis, as they come."""
    run = loaded_run(folder)
    shape = run.family.latent_shape(run.family.resolution)
    sets: dict[int, PreferencePairs] = {}
    kilobytes: dict[int, float] = {}
    for num in rows:
        before = _own_memory()
        sets[num] = _pairs(run, num, shape, folder)
        kilobytes[num] = round((_own_memory() - before) / num, 2)
    by_rows = _take_turns({str(num): steps_of(run, BATCH, pairs) for num, pairs in sets.items()}, rounds)
    yield "rows", {**_figures(by_rows), "kilobytes_a_row": {str(num): value for num, value in kilobytes.items()}}
    fewer = max(1, rounds // LESS_ROUNDS)
    some = sets[rows[0]]
    yield "micro_batch", _figures(_take_turns({str(of): steps_of(run, of, some) for of in BATCHES}, fewer))
    sides = {side: (shape[0], shape[1] * side, shape[2] * side) for side in SIDES}
    grown = {str(of[-1]): _pairs(run, rows[0], of, folder) for of in sides.values()}
    yield "latent_side", _figures(_take_turns({of: steps_of(run, BATCH, it) for of, it in grown.items()}, fewer))
    yield "processes", _figures({str(count): steps_of_processes(count, fewer) for count in PROCESSES})


def grown_with_rows(figures: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of rows on which a step takes longer than is borne, with how many times as long."""
    return {num: ratio for num, ratio in figures["ratios"].items() if ratio > MOST_FOR_ROWS}


def lines_of(kind: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """A line a figure, against the first of its kind."""
    for name, milliseconds in figures["milliseconds"].items():
        yield f"{kind} {name}: {milliseconds:.2f} ms, {figures['ratios'][name]:.3f} times the first"


def _pairs(run: Run, num: int, shape: tuple[int, int, int], folder: Path) -> PreferencePairs:
    return synthetic_pairs(num, shape, run.family.encode_empty(), folder / "latents")


def _take_turns(steps: Mapping[str, Iterator[object]], rounds: int) -> dict[str, Seconds]:
    """Seconds of a step of each, round by round, each round in another order."""
    seconds = {name: Seconds([], []) for name in steps}
    names = list(steps)
    for number in range(WARM_UP + rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            took = seconds_of(lambda name=name: next(steps[name]))
            if number >= WARM_UP:
                seconds[name].add(took)
    return seconds


def _figures(seconds: Mapping[str, Seconds]) -> dict[str, dict[str, float]]:
    first = next(iter(seconds.values()))
    return {
        "milliseconds": {name: round(1000 * median(of.own), 3) for name, of in seconds.items()},
        "ratios": {name: round(paired_ratio(of.own, first.own), 4) for name, of in seconds.items()},
        "ratios_by_the_clock": {
            name: round(paired_ratio(of.by_the_clock, first.by_the_clock), 4) for name, of in seconds.items()
        },
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
