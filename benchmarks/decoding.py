"""Images a second that threads and processes decode and transform, as many of each as cores: `python -m benchmarks.decoding`.

What `datasets.encoding` does to an image before the encoder sees it, to photographs of 512 pixels and more. All ways take turns and must
give the same pixels. Writes `decoding.json` and `decoding.svg`.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from alignment_core.datasets.decoders import Decode, cores, in_processes, in_threads
from benchmarks.caching import RESOLUTION, photograph
from benchmarks.speed import DOCS, paired_ratio, save
from benchmarks.speed_plot import draw_decoding


def main() -> None:
    arguments = _parser().parse_args()
    found = measured([photograph(number) for number in range(arguments.images)], arguments.workers, arguments.rounds)
    save(found, arguments.docs / "decoding.json")
    draw_decoding(found, arguments.docs / "decoding.svg")
    for way, rate in found["images_per_second"].items():
        sys.stdout.write(f"{way}: {rate} images/s, {found['times_one_thread'][way]} times one thread\n")


def measured(images: Sequence[bytes], workers: int, rounds: int) -> dict[str, Any]:
    """Images a second of each way, and how many times as fast it is as one thread."""
    with ExitStack() as stack:
        ways: dict[str, Decode] = {
            "one_thread": stack.enter_context(in_threads(1)),
            "threads": stack.enter_context(in_threads(workers)),
            "processes": stack.enter_context(in_processes(workers)),
        }
        seconds = {way: [] for way in ways}
        for number in range(rounds + 1):  # the first one starts threads and processes
            pixels = {way: _timed(lambda decode=decode: _decoded(decode, images)) for way, decode in ways.items()}
            assert all(torch.equal(a, b) for a, b in zip(pixels["one_thread"][1], pixels["processes"][1], strict=True))
            for way, (took, _) in pixels.items():
                seconds[way] += [took] if number else []
    return {
        "images": len(images),
        "workers": workers,
        "rounds": rounds,
        "images_per_second": {way: round(len(images) / median(of), 1) for way, of in seconds.items()},
        "times_one_thread": {way: round(paired_ratio(seconds["one_thread"], of), 2) for way, of in seconds.items()},
    }


def _timed(work: Callable[[], list[Tensor]]) -> tuple[float, list[Tensor]]:
    began = time.perf_counter()
    found = work()
    return time.perf_counter() - began, found


def _decoded(decode: Decode, images: Sequence[bytes]) -> list[Tensor]:
    return [begun.result()[0] for begun in [decode(image, RESOLUTION) for image in images]]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--workers", type=int, default=cores())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--docs", type=Path, default=DOCS, help="where figures are written")
    return parser


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
