"""What the benchmarks of drawing share: turns of several ways in alternation, a line for each row, JSON and plot."""

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.speed import machine
from benchmarks.speed_plot import draw_drawing
from benchmarks.step.measuring import Seconds, clock
from benchmarks.step.plain import Plain

TOLERANCE = 1e-5

Turn = Callable[[], object]


def turns_in_alternation(turns: Mapping[str, Turn], num_turns: int) -> dict[str, Seconds]:
    """Seconds of a turn of each way, one after the other, so that a machine that slows down slows all; one of each goes before."""
    taken: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(1 + num_turns):
        for name, turn in turns.items():
            started = clock()
            turn()
            if number:
                taken[name].append(clock() - started)
    return {name: Seconds.of(times) for name, times in taken.items()}


def row_of(
    case: str,
    precision: str,
    num_images: int,
    apart: float,
    times: Mapping[str, Seconds],
    parts: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """`apart` is how far pixels in [0, 1] of Attune's and the plain loop's images are apart at most; in half precision, or on a GPU,
    where sums come in another order, it is said and not asked for."""
    return {
        "case": case,
        "images": num_images,
        "images_differ_by": apart,
        "agrees": apart <= TOLERANCE or precision != "fp32" or torch.cuda.is_available(),
        "seconds": {name: vars(seconds) for name, seconds in times.items()},
        "images_per_second": {name: round(num_images / seconds.median, 3) for name, seconds in times.items()},
        "ratios": {name: round(Seconds.ratio(one, times["ours"]), 3) for name, one in times.items() if name != "ours"},
        "parts": {name: {part: round(value, 4) for part, value in of.items()} for name, of in parts.items()},
    }


def line_of(row: Mapping[str, Any]) -> str:
    """One row as text."""
    against = ", ".join(f"{ratio:.2f} times as fast as {name}" for name, ratio in row["ratios"].items())
    split = ", ".join(f"{part} {value:.3f} s" for part, value in row["parts"]["ours"].items())
    agrees = "" if row["agrees"] else " OTHER IMAGES:"
    return (
        f"{row['case']}:{agrees} {row['images_per_second']['ours']:.2f} images/s, {against}; {split}; "
        f"images differ by {row['images_differ_by']:.0e}"
    )


def report(rows: Iterator[dict[str, Any]], out: Path, **about: Any) -> None:
    """Print rows as they come, keep them as JSON and as a plot; leaves with an error where images differ."""
    found: dict[str, Any] = {"machine": machine(), "date": time.strftime("%Y-%m-%d"), **about, "rows": []}
    out.parent.mkdir(parents=True, exist_ok=True)
    for row in rows:
        found["rows"].append(row)
        sys.stdout.write(line_of(row) + "\n")
        sys.stdout.flush()
        out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    draw_drawing(found, out.with_suffix(".svg"))
    if not all(row["agrees"] for row in found["rows"]):
        sys.exit("Attune and the plain loop draw different images")


@torch.no_grad()
def farthest(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max())


def networks_of_run(family: Any) -> dict[str, list[torch.nn.Module]]:
    """Attune's networks by part; the VAE's decoder, since to decode is no forward of the whole."""
    denoiser, *text_encoders = family.components().values()
    return {"text encoding": text_encoders, "denoising": [denoiser], "VAE decode": [family.vae.decoder]}


def networks_of_plain(plain: Plain) -> dict[str, list[torch.nn.Module]]:
    model = plain.model
    return {
        "text encoding": list(model.text_encoders),
        "denoising": [plain.network],
        "VAE decode": [model.vae.decoder],
    }
