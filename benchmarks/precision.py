"""How far half precision is off, by family and latent size: `python -m benchmarks.precision [OUT]` prints the table of `docs/precision.md`.

On a CPU, with the demo's models of 32 px, whose autocast rounds where a GPU's does in all but the norms. Diffusion-DPO at beta 5000, a LoRA
that is a thousandth of its weights off, random latents and prompts, timesteps evenly spaced. Writes the rows as JSON and as a plot, where OUT says so.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from alignment_core.actors.actors import Actors
from alignment_core.actors.build import lora_actors
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.families.family import Family
from alignment_core.load.model import load_model
from alignment_core.load.precision import DTYPES, HALVES, Half
from alignment_core.methods.diffusion_dpo import DiffusionDPO, pair_loss
from alignment_core.methods.pair_batches import PairBatch, PairDraws
from alignment_core.spec import LocalSource
from alignment_core.training.logit_error import measure
from benchmarks.precision_plot import draw_precision
from benchmarks.speed import save
from demo.assets import ASSETS

BETA, NUM_PAIRS, SEED = 5000.0, 16, 0
FAMILIES = Path(__file__).parents[1] / "demo" / "families" / "assets"
MODELS = {"SD 1": ASSETS / "model", "SDXL": FAMILIES / "sdxl", "SD 3": FAMILIES / "sd3"}
PROMPT = "a red circle"


@dataclass(frozen=True)
class Exactness:
    """A row of the table: root mean squares of the logits' error and of the logits."""

    family: str
    latent: int
    precision: Half
    logit_error: float
    logit_rms: float


def exactness(name: str, scale: int, half: Half) -> Exactness:
    """Of one family at `scale` times its own latent size."""
    dtype, source = DTYPES[half], LocalSource(path=str(MODELS[name]))
    family = load_model(source, device=torch.device("cpu"), frozen_dtype=torch.float32, denoiser_dtype=dtype)
    channels, side, _ = family.latent_shape(family.resolution)
    batch = _batch(family, channels, scale * side)
    measured, _ = measure(actors_of(family, dtype), dpo(NUM_PAIRS), batch, half, SEED)
    assert measured.logit_error is not None
    assert measured.logit_rms is not None
    return Exactness(name, scale * side, half, measured.logit_error, measured.logit_rms)


def actors_of(family: Family, dtype: torch.dtype) -> Actors:
    """A LoRA's policy and reference, computing in `dtype`."""
    return lora_actors(
        family,
        family.denoiser,
        rank=8,
        alpha=8.0,
        target_modules=("to_k", "to_q", "to_v", "to_out.0"),
        seed=SEED,
        autocast=lambda: torch.autocast("cpu", dtype=dtype),
    )


def dpo(num_pairs: int) -> DiffusionDPO:
    """The method, for batches that are given."""
    no_pairs = object.__new__(PreferencePairs)  # the batch is given, and nothing is drawn
    no_draws = PairDraws(no_pairs, 0.0, num_pairs, 1, SEED)
    return DiffusionDPO(no_draws, pair_loss("sigmoid"), BETA, "mean", half_factor=True, in_eps_units=False)


def _batch(family: Family, channels: int, side: int) -> PairBatch:
    draws = torch.Generator().manual_seed(SEED)
    x_0_w, x_0_l, eps = torch.randn(3, NUM_PAIRS, channels, side, side, generator=draws).unbind()
    steps = torch.arange(NUM_PAIRS) * 2 + 1
    ones = torch.ones(NUM_PAIRS)
    conditioning = family.sampling_conditioning([PROMPT] * NUM_PAIRS)
    return PairBatch(x_0_w, x_0_l, eps, steps * family.path.num_timesteps // (2 * NUM_PAIRS), ones, conditioning, ones)


def rows() -> Iterator[Exactness]:
    """Every row, in the order of the table."""
    for name in MODELS:
        for scale in (1, 2):
            for half in HALVES:
                yield exactness(name, scale, half)


def line_of(row: Exactness) -> str:
    """A row as the page has it."""
    size = f"{row.latent} x {row.latent}"
    return f"| {row.family} | {size} | {row.precision} | {row.logit_error:.2g} | {row.logit_rms:.2g} |"


def main() -> None:
    out: Path | None = _parser().parse_args().out
    torch.set_num_threads(1)
    found = list[Exactness]()
    for row in rows():
        found.append(row)
        sys.stdout.write(line_of(row) + "\n")
        sys.stdout.flush()
    if out is not None:
        report = {"rows": [asdict(row) for row in found]}
        save(report, out.with_suffix(".json"))
        draw_precision(report, out.with_suffix(".svg"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, help="of JSON and plot, without suffix")
    return parser


if __name__ == "__main__":
    main()
