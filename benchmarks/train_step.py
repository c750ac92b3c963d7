"""What a training step costs, by method, against the published scripts: `python -m benchmarks.train_step`.

Every method of Attune beside a plain implementation of it in `benchmarks/step/`, on the same model of random weights, in one
process: first that losses and gradients agree to 1e-5, then turns of both in alternation, then the peak memory of each in a
process of its own. Prints ratios, writes JSON and a plot, and the table into a page of the same name that has its marks. `--size sd15`, `sdxl` and `sd35m` want a GPU; `sd35m` has the offline methods.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from alignment_core.actors.replay import CudaGraphs
from benchmarks.speed import device_name
from benchmarks.step.cases import CASES, Case, agreement, load, plain_turn, spec_of, steps_of
from benchmarks.step.measuring import Peak, Seconds, alternate, peak_of_turns, split_of
from benchmarks.step.page import draw, into_page, line_of
from benchmarks.step.plain import Plain
from benchmarks.step.random_models import save_model, save_pairs
from benchmarks.step.sizes import SIZES, TOLERANCE, Size


def main() -> None:
    arguments = _parser().parse_args()
    torch.set_num_threads(1)
    if arguments.peak_of:
        _print_peak(arguments)
        return
    size = SIZES[arguments.size]
    cases = [case for case in CASES if case.is_of(size) and case.name in (arguments.cases or [case.name])]
    with tempfile.TemporaryDirectory() as folder:
        save_model(size, Path(folder) / "model")
        save_pairs(size, Path(folder) / "pairs.parquet")
        rows = []
        for case in cases:
            rows.append(measure(case, size, Path(folder), arguments))
            sys.stdout.write(line_of(rows[-1]) + "\n")
            sys.stdout.flush()
            found = {"size": arguments.size, "device": _device(), "date": time.strftime("%Y-%m-%d"), "rows": rows}
            arguments.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
            draw(found, arguments.out.with_suffix(".svg"))
            if (page := arguments.out.with_suffix(".md")).exists():
                into_page(found, page)
    if not all(row["agrees"] for row in rows):
        sys.exit("losses or gradients of a method differ")


def measure(case: Case, size: Size, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One row: whether both say the same, how long each takes, and how much memory."""
    ours, theirs, pairs = loaded(case, size, folder, arguments.precision)
    if arguments.cuda_graphs:
        ours.actors.record_with(CudaGraphs())
    if arguments.compile:
        ours.actors.compile_with()
    with ours.actors.compiled():
        agreed = agreement(case, ours, theirs, pairs)
    steps, turn = steps_of(ours), plain_turn(case, size, theirs, pairs)

    def our_turn() -> None:
        for _ in range(case.steps_a_turn):
            next(steps)

    num_warm = len(pairs) // case.batch_size(size) + 1  # an epoch: every draw of a reference_cache is then known
    num_turns = (arguments.turns + 1) // 2 if case.is_online else arguments.turns  # an iteration is twenty steps long
    times = alternate(our_turn, turn, num_turns=num_turns, num_warm=1 if case.is_online else num_warm)
    peaks = {} if arguments.quick else {of: _peak_in_a_process(case, of, folder, arguments) for of in ("ours", "plain")}
    return {
        "case": case.name,
        "target": case.target,
        "by_flops": case.by_flops,
        "agrees": arguments.precision != "fp32" or max(agreed.loss, agreed.gradient) <= TOLERANCE,
        "loss_differs_by": agreed.loss,
        "gradient_differs_by": agreed.gradient,
        "seconds": {of: vars(seconds) for of, seconds in times.items()},
        "ratio": Seconds.ratio(times["plain"], times["ours"]),
        "peak_bytes": {of: vars(peak) for of, peak in peaks.items()},
        "peak_ratio": peaks["ours"].process / peaks["plain"].process if peaks else None,
        "tensors_ratio": peaks["ours"].tensors / peaks["plain"].tensors if peaks else None,
        "split": split_of(our_turn),
    }


def loaded(case: Case, size: Size, folder: Path, precision: str) -> tuple[Any, Plain, list[dict[str, Any]]]:
    """Attune's run, the plain implementation, and the rows of the data."""
    spec = spec_of(case, size, folder / "model", folder / "pairs.parquet", precision)
    ours = load(spec, folder / "cache")
    device = ours.family.device
    theirs = Plain(folder / "model", device, resolution=size.resolution, is_full=case.is_full)
    return ours, theirs, pq.read_table(folder / "pairs.parquet").to_pylist()


def _peak_in_a_process(case: Case, of: str, folder: Path, arguments: argparse.Namespace) -> Peak:
    command = [
        sys.executable,
        "-m",
        "benchmarks.train_step",
        "--size",
        arguments.size,
        "--precision",
        arguments.precision,
    ]
    command += ["--peak-of", case.name, of, str(folder)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    return Peak(**json.loads(said))


def _print_peak(arguments: argparse.Namespace) -> None:
    """The peak of a few turns of one of the two, which alone is loaded."""
    name, of, folder = arguments.peak_of
    (case,) = [case for case in CASES if case.name == name]
    size = SIZES[arguments.size]
    if of == "ours":
        spec = spec_of(case, size, Path(folder) / "model", Path(folder) / "pairs.parquet", arguments.precision)
        steps = steps_of(load(spec, Path(folder) / "cache"))
        turn, num = (lambda: [next(steps) for _ in range(case.steps_a_turn)]), 1 if case.is_online else 5
    else:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        plain = Plain(Path(folder) / "model", device, resolution=size.resolution, is_full=case.is_full)
        pairs = pq.read_table(Path(folder) / "pairs.parquet").to_pylist()
        turn, num = plain_turn(case, size, plain, pairs), 1 if case.is_online else 2
    sys.stdout.write(json.dumps(vars(peak_of_turns(turn, num))) + "\n")


def _device() -> str:
    return device_name() if torch.cuda.is_available() else f"{device_name()}, one thread"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--precision", choices=["fp32", "bf16", "fp16"], default="fp32", help="of Attune's networks")
    parser.add_argument("--compile", action="store_true", help="Attune's repeated blocks, as by `training.compile: on`")
    parser.add_argument("--cuda-graphs", action="store_true", help="record Attune's kernels, as by `cuda_graphs: auto`")
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], help="only these")
    parser.add_argument(
        "--turns", type=int, default=5, help="timed turns of each (default 5), half as many of an online method"
    )
    parser.add_argument("--quick", action="store_true", help="without the memory of each")
    parser.add_argument("--out", type=Path, default=Path("build/train_step"), help="where .json and .svg are written")
    parser.add_argument("--peak-of", nargs=3, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
