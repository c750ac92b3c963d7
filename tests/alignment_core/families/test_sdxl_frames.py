"""What SDXL is told of images: each its own file and crop."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Generator, Tensor

from alignment_core.datasets.cache import Places, ShardReader
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.datasets.posteriors import PairPosteriors
from alignment_core.datasets.rows import Annotation
from alignment_core.families.sdxl import StableDiffusionXL
from tests.alignment_core.families.test_sdxl import load

PROMPTS = ["a red circle", "a blue square"]
FRAMES_W, FRAMES_L = torch.tensor([[40, 30, 0, 3], [16, 16, 0, 0.0]]), torch.tensor([[20, 90, 5, 0], [16, 33, 0, 8.0]])


class Framed:
    """Posteriors whose frames are told apart."""

    def read(self, indices: Sequence[int], draws: Sequence[Generator] | None) -> PairPosteriors:
        zeros = torch.zeros(len(indices), 4, 8, 8)
        return PairPosteriors(zeros, zeros, zeros, zeros, FRAMES_W[list(indices)], FRAMES_L[list(indices)])


class NoText:
    """In place of cached prompts."""

    def read(self, places: Places) -> dict[str, Tensor]:
        return {"prompt_embeds": torch.zeros(len(places), 8, 24)}


def framed_pairs(family: StableDiffusionXL) -> PreferencePairs:
    rows = [Annotation(number, prompt, "", "", 1.0, None, prompt) for number, prompt in enumerate(PROMPTS)]
    places = torch.zeros(2, 2, dtype=torch.long)

    def told(frames: Tensor) -> dict[str, Tensor]:
        return family.image_conditioning(frames, 16)

    return PreferencePairs(rows, Framed(), cast(ShardReader, NoText()), places, places[:1], told)


def test_each_image_of_a_pair_is_told_its_own_file_and_crop(tiny_sdxl: Path) -> None:
    pairs = framed_pairs(load(tiny_sdxl))
    batch = pairs.batch([1, 0])
    assert batch.chosen_conditioning["time_ids"].tolist() == [[16, 16, 0, 0, 16, 16], [40, 30, 0, 3, 16, 16]]
    assert batch.rejected_conditioning["time_ids"].tolist() == [[16, 33, 0, 8, 16, 16], [20, 90, 5, 0, 16, 16]]
    assert torch.equal(pairs.winners([1], [Generator()])[2]["time_ids"], batch.chosen_conditioning["time_ids"][:1])
