"""What a step waits for shards on a disk that holds a part of the set, with and without looking ahead, and in blocks: `python -m benchmarks.shards`.

Shards of random posteriors in a folder that answers as late as a store would; a step draws pairs by the seed, reads them and then takes
`--step-seconds`, in which nothing here is busy, as in a step on a GPU. The ways take turns; shuffled as a whole both read the same bits. Writes `shards.json` and `shards.svg`.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from alignment_core.datasets.cache import ShardReader, TensorCache
from alignment_core.datasets.shard_store import FolderStore
from alignment_core.datasets.shelf import Shelves
from alignment_core.methods.order import Blocks, indices_of_step
from benchmarks.speed import DOCS, save
from benchmarks.speed_plot import draw_shards

SHARD_BYTES, ENTRIES = 2**20, 16
BLOCKS = Blocks(rows=4 * ENTRIES, window=4)  # 16 shards, where the disk holds 24
WAYS: dict[str, tuple[bool, Blocks | None]] = {
    "as_needed": (False, None),
    "ahead": (True, None),
    "in_blocks": (True, BLOCKS),
}
SPACE: dict[str, str | int] = {"kind": "posterior"}


class LateStore(FolderStore):
    """Answers after `seconds`, and counts what it gives."""

    def __init__(self, root: Path, seconds: float) -> None:
        super().__init__(root)
        self.seconds, self.num_given = seconds, 0

    def get(self, namespace: str, name: str, path: Path) -> None:
        time.sleep(self.seconds)
        self.num_given += "-" not in name
        super().get(namespace, name, path)


def main() -> None:
    arguments = _parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), arguments)
    save(found, arguments.docs / "shards.json")
    draw_shards(found, arguments.docs / "shards.svg")
    for way in WAYS:
        of = found[way]
        sys.stdout.write(
            f"{way}: {of['fetched_per_step']} shards and {of['waiting_seconds_per_step']} s of waiting a step\n"
        )


def measured(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    num = arguments.shards * ENTRIES
    store = LateStore(folder / "store", 0.0)
    _filled(Shelves(folder / "first", store), num)
    store.seconds = arguments.late_seconds
    disk_bytes = arguments.shards * SHARD_BYTES // arguments.share
    found = {way: [] for way in WAYS}
    sums = set[float]()
    for _ in range(arguments.rounds):
        for way, steps in found.items():
            shutil.rmtree(folder / "second", ignore_errors=True)
            cache = _filled(Shelves(folder / "second", store, disk_bytes), num)
            places = torch.tensor([cache.find(cache.key(b"%d" % number)) for number in range(num)])
            store.num_given = 0
            looks_ahead, blocks = WAYS[way]
            waited, checksum = _steps(cache.reader(), places, arguments, blocks, looks_ahead=looks_ahead)
            steps.append((store.num_given / arguments.steps, waited))
            if blocks is None:
                sums.add(checksum)
    assert len(sums) == 1, "both ways read the same"
    return {
        **{
            name: getattr(arguments, name)
            for name in ("shards", "pairs", "steps", "rounds", "late_seconds", "step_seconds")
        },
        "disk_share": round(1 / arguments.share, 3),
        **{
            way: {
                "fetched_per_step": round(mean(fetched for fetched, _ in steps), 2),
                "waiting_seconds_per_step": round(mean(waited for _, waited in steps), 3),
            }
            for way, steps in found.items()
        },
    }


def _filled(shelves: Shelves, num: int) -> TensorCache:
    cache, draws = TensorCache(shelves, SPACE, shard_bytes=SHARD_BYTES), torch.Generator().manual_seed(0)
    for number in range(num):
        value = torch.randn(SHARD_BYTES // ENTRIES // 4, generator=draws)
        if cache.find(cache.key(b"%d" % number)) is None:
            cache.add(cache.key(b"%d" % number), {"mean": value})
            cache.flush_if_large()
    cache.flush()
    shelves.settle()
    return cache


def _steps(
    reader: ShardReader,
    places: torch.Tensor,
    arguments: argparse.Namespace,
    blocks: Blocks | None,
    *,
    looks_ahead: bool,
) -> tuple[float, float]:
    """Seconds a step waits for its pairs, and the sum of all that was read."""
    waited = checksum = 0.0
    for coming, now in _with_next(arguments.steps, len(places), arguments.pairs, blocks):
        if looks_ahead:
            for step in coming:
                reader.foresee(places[step])
        began = time.perf_counter()
        read = reader.read(places[now])["mean"]
        waited += time.perf_counter() - began
        checksum += float(read.double().sum())
        time.sleep(arguments.step_seconds)
    return waited / arguments.steps, checksum


def _with_next(steps: int, num: int, pairs: int, blocks: Blocks | None) -> Iterator[tuple[list[list[int]], list[int]]]:
    """What is foreseen before each step, and the step: itself too before the first."""
    order = [indices_of_step(num, pairs, step, 0, blocks) for step in range(steps + 1)]
    for step in range(steps):
        yield order[step + 1 : step + 2] if step else order[:2], order[step]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=96)
    parser.add_argument("--share", type=int, default=4, help="of the set, one so manieth fits the disk")
    parser.add_argument("--pairs", type=int, default=4, help="a step")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--late-seconds", type=float, default=0.1, help="until the store has given a shard")
    parser.add_argument("--step-seconds", type=float, default=0.25, help="that a step computes")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where figures are written")
    return parser


if __name__ == "__main__":
    main()
