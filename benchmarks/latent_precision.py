"""What encoding images in half changes, by family: `python -m benchmarks.latent_precision [OUT]` prints the table of `docs/precision.md`.

On a CPU, the demo's models and pairs of 32 px. How far half precision moves the latents, over how far rounding pixels to 8 bits does, and what
either changes of the logits: Diffusion-DPO at beta 5000, a LoRA that is a thousandth of its weights off, networks in float32, the same noise. Writes the rows as JSON and as a
plot, where OUT says so.
"""

import argparse
import io
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import torch
from PIL import Image
from torch import Tensor

from alignment_core.datasets.images import decode_image
from alignment_core.datasets.transforms import transform
from alignment_core.families.family import Family
from alignment_core.load.model import load_model
from alignment_core.load.precision import DTYPES, HALVES
from alignment_core.load.vae_precision import MAX_LATENT_ERROR, Encoded, in_roundings, rounding_of
from alignment_core.methods.pair_batches import PairBatch
from alignment_core.seeds import generator_of
from alignment_core.spec import LocalSource
from alignment_core.training.logit_error import logits_of, nudged, rms
from benchmarks.precision import MODELS, SEED, actors_of, dpo
from benchmarks.precision_plot import draw_latent_precision
from benchmarks.speed import save
from demo.assets import ASSETS

NUM_PAIRS, JPEG_QUALITY = 128, 95


@dataclass(frozen=True)
class Change:
    """A row of the table: the latents' error in units of the bound, and root mean squares of the logits' change and of the logits."""

    family: str
    encoded: str
    latent_error: float
    logit_change: float
    logit_rms: float


def changes(name: str) -> Iterator[Change]:
    """Of one family: the half precisions, and beside them what other pixels change."""
    source, exact = LocalSource(path=str(MODELS[name])), torch.float32
    family = load_model(source, device=torch.device("cpu"), frozen_dtype=exact, denoiser_dtype=exact)
    images = _images(family.resolution)
    plain, moved = family.encode_images(images), family.encode_images(images + rounding_of(images))
    batch, actors = _batch(family), actors_of(family, exact)

    def logits(encoded: Encoded) -> Tensor:
        x_0_w, x_0_l = _latents(encoded)
        with torch.no_grad(), nudged(actors.trainable(), SEED):
            return logits_of(dpo(NUM_PAIRS).loss(actors, replace(batch, x_0_w=x_0_w, x_0_l=x_0_l)))

    u = logits(plain)
    others = {half: family.encode_images(images, DTYPES[half]) for half in HALVES}
    others |= {"fp32, pixels off by their rounding": moved}
    others |= {f"fp32, JPEG of quality {JPEG_QUALITY}": family.encode_images(_as_jpeg(images))}
    for label, encoded in others.items():
        yield Change(name, label, in_roundings(encoded, plain, moved), rms(logits(encoded) - u), rms(u))


def _as_jpeg(images: Tensor) -> Tensor:
    """Written and read again, as most data sets keep their images."""
    return torch.stack([_through_jpeg(image) for image in images])


def _through_jpeg(image: Tensor) -> Tensor:
    levels = ((image + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0).numpy()
    written = io.BytesIO()
    Image.fromarray(levels).save(written, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return transform(decode_image(written.getvalue()), image.shape[-1])


def _images(resolution: int) -> Tensor:
    """Winners, and then losers."""
    table = pq.read_table(ASSETS / "pairs.parquet").slice(0, NUM_PAIRS)
    columns = [table[column].to_pylist() for column in ("chosen", "rejected")]
    return torch.stack([transform(decode_image(image), resolution) for column in columns for image in column])


def _latents(encoded: Encoded) -> tuple[Tensor, Tensor]:
    mean, std = encoded
    noise = torch.randn(mean.shape, generator=generator_of(SEED, "posterior"))
    x_0_w, x_0_l = (mean + std * noise).chunk(2)
    return x_0_w, x_0_l


def _batch(family: Family) -> PairBatch:
    shape = (NUM_PAIRS, *family.latent_shape(family.resolution))
    eps, none = torch.randn(shape, generator=generator_of(SEED, "eps")), torch.zeros(shape)
    t = (torch.arange(NUM_PAIRS) * 2 + 1) * family.path.num_timesteps // (2 * NUM_PAIRS)
    ones = torch.ones(NUM_PAIRS)
    prompts = pq.read_table(ASSETS / "pairs.parquet", columns=["prompt"]).slice(0, NUM_PAIRS)["prompt"].to_pylist()
    return PairBatch(none, none, eps, t, ones, family.sampling_conditioning(prompts), ones)


def line_of(row: Change) -> str:
    """A row as the page has it."""
    return f"| {row.family} | {row.encoded} | {row.latent_error:.2g} | {row.logit_change:.2g} | {row.logit_rms:.2g} |"


def main() -> None:
    out: Path | None = _parser().parse_args().out
    torch.set_num_threads(1)
    found = list[Change]()
    for row in (row for name in MODELS for row in changes(name)):
        found.append(row)
        sys.stdout.write(line_of(row) + "\n")
        sys.stdout.flush()
    if out is not None:
        report = {"bound": MAX_LATENT_ERROR, "rows": [asdict(row) for row in found]}
        save(report, out.with_suffix(".json"))
        draw_latent_precision(report, out.with_suffix(".svg"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, help="of JSON and plot, without suffix")
    return parser


if __name__ == "__main__":
    main()
