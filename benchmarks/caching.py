"""Images a second into the cache, decoded ahead of the encoder and in turns with it: `python -m benchmarks.caching`.

Photographs of 512 pixels and more (smooth noise, as JPEG), all different. Two encoders: `vae`, a small one on this CPU, which
competes with decoding for its cores; and `waiting`, which waits as long as an H100 was measured to take for an image of SD 1.5 at
512 pixels and leaves the CPU alone, as a GPU does: its figures are an estimate of a GPU's, not a measurement. Both ways take turns,
round by round, and must give the same latents. Writes `caching.json` and `caching.svg`.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from alignment_core.datasets.bad_rows import read_annotations
from alignment_core.datasets.cache import TensorCache
from alignment_core.datasets.detect import open_preferences
from alignment_core.datasets.encoding import BYTES_AHEAD, EncodeImages, EncodingProgress, cache_images
from benchmarks.speed import DOCS, paired_ratio, save
from benchmarks.speed_plot import draw_caching

RESOLUTION, FILE_SIZE = 512, (768, 640)
H100_SECONDS_AN_IMAGE = 1 / 99
WAYS = {"in_turns": 0, "ahead": BYTES_AHEAD}


def main() -> None:
    arguments = _parser().parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        dataset = _photographs(Path(folder) / "pairs.parquet", arguments.pairs)
        found = {
            "images": 2 * arguments.pairs,
            "rounds": arguments.rounds,
            "encoders": {
                name: _figures(dataset, encode, arguments.rounds, Path(folder) / name)
                for name, encode in {"vae": _small_vae(), "waiting": _waiting}.items()
            },
        }
    save(found, arguments.docs / "caching.json")
    draw_caching(found, arguments.docs / "caching.svg")
    for name, figures in found["encoders"].items():
        rates = figures["images_per_second"]
        sys.stdout.write(f"{name}: {rates['in_turns']} images/s in turns, {rates['ahead']} ahead: {figures['ratio']}\n")


def _figures(dataset: Path, encode: EncodeImages, rounds: int, folder: Path) -> dict[str, Any]:
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    kept: dict[str, Mapping[str, Tensor]] = {}
    for number in range(rounds):
        for way in list(WAYS)[:: 1 if number % 2 else -1]:
            began = time.perf_counter()
            kept[way] = _encoded(dataset, encode, folder / f"{number}-{way}", WAYS[way])
            seconds[way].append(time.perf_counter() - began)
        assert all(torch.equal(kept["ahead"][name], kept["in_turns"][name]) for name in ("mean", "std"))
    num = len(kept["ahead"]["mean"])
    return {
        "images_per_second": {way: round(num / median(of), 1) for way, of in seconds.items()},
        "ratio": round(paired_ratio(seconds["in_turns"], seconds["ahead"]), 3),
    }


def _encoded(dataset: Path, encode: EncodeImages, folder: Path, bytes_ahead: int) -> Mapping[str, Tensor]:
    source = open_preferences(dataset)
    annotations = read_annotations(source, ties="keep")
    cache = TensorCache(folder, {"kind": "posterior"})
    caching = cache_images(
        source,
        annotations,
        encode,
        cache,
        num_images=2,
        resolution=RESOLUTION,
        batch_size=8,
        progress=EncodingProgress(total=2 * len(annotations)),
        bytes_ahead=bytes_ahead,
    )
    while True:
        try:
            next(caching)
        except StopIteration as end:
            return cache.reader().read(torch.cat(end.value))


def _waiting(images: Tensor) -> tuple[Tensor, Tensor]:
    time.sleep(H100_SECONDS_AN_IMAGE * len(images))
    mean = F.avg_pool2d(images[:, :1], 8)
    return mean, mean.abs()


def _small_vae() -> EncodeImages:
    torch.manual_seed(0)
    widths = (4, 4, 8, 8)
    vae = AutoencoderKL(
        block_out_channels=widths,  # pyright: ignore[reportArgumentType]  (diffusers means any number)
        down_block_types=("DownEncoderBlock2D",) * len(widths),  # pyright: ignore[reportArgumentType]
        up_block_types=("UpDecoderBlock2D",) * len(widths),  # pyright: ignore[reportArgumentType]
        layers_per_block=1,
        norm_num_groups=2,
        mid_block_add_attention=False,
    )

    @torch.no_grad()
    def encode(images: Tensor) -> tuple[Tensor, Tensor]:
        (found,) = vae.encode(images, return_dict=False)
        return found.mean, found.std

    return encode


def _photographs(path: Path, num: int) -> Path:
    table = {
        "prompt": [f"prompt {index}" for index in range(num)],
        "chosen": [photograph(2 * index) for index in range(num)],
        "rejected": [photograph(2 * index + 1) for index in range(num)],
    }
    pq.write_table(pa.table(table), path, row_group_size=8)
    return path


def photograph(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize(FILE_SIZE, Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="of the encoder on the CPU")
    parser.add_argument("--docs", type=Path, default=DOCS, help="where figures and plot are written")
    return parser


if __name__ == "__main__":
    main()
