"""From a decoded image to the tensor that is trained on: shorter side to the resolution, crop, flip, [-1, 1].

Resizing and centre crop agree with torchvision's `Resize` (bilinear, antialiased) and `CenterCrop` on PIL images, which
the published Diffusion-DPO scripts use. A random place is drawn in relative terms, so that the two images of a pair can
share it even when their sizes differ.
"""

from typing import Literal, assert_never

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Generator, Tensor

from alignment_core.datasets.placement import CENTER, Placement, frame_of, placed

Crop = Literal["center", "random"]
Pixels = Float[Tensor, "3 resolution resolution"]
Frame = Float[Tensor, "4"]
"""Height and width of an image's file, top and left of the crop in the resized image: what SDXL is told of an image."""


def is_random(crop: Crop, *, horizontal_flip: bool) -> bool:
    """Whether an image is transformed anew each time, so that its latents cannot be cached."""
    match crop:
        case "random":
            return True
        case "center":
            return horizontal_flip
        case _:
            assert_never(crop)


def draw_placement(generator: Generator, *, crop: Crop, horizontal_flip: bool) -> Placement:
    """One random placement; always three draws, so that options do not shift the draws that follow."""
    top, left, coin = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    flip = horizontal_flip and coin < 0.5
    match crop:
        case "random":
            return Placement(top, left, flip)
        case "center":
            return Placement(flip=flip)
        case _:
            assert_never(crop)


def transform(image: Image.Image, resolution: int, placement: Placement = CENTER) -> Pixels:
    """float32 `[3, resolution, resolution]` in [-1, 1] of an RGB image."""
    return scaled(placed(image, resolution, placement))


def scaled(pixels: np.ndarray) -> Pixels:
    """The same of what `placed` gives."""
    channels_first = torch.from_numpy(pixels).permute(2, 0, 1).contiguous()
    return channels_first.float().div_(127.5).sub_(1)  # in place: fresh memory costs as much as the arithmetic


def frame(image: Image.Image, resolution: int, placement: Placement = CENTER) -> Frame:
    """Where `transform` takes its pixels from, as diffusers' SDXL scripts count."""
    return torch.tensor(frame_of(image, resolution, placement), dtype=torch.float32)


def draw_placements(
    generator: Generator, *, crop: Crop, horizontal_flip: bool, joint: bool
) -> tuple[Placement, Placement]:
    """Those of both images of a pair: one for the two (`joint`) or one each."""
    first = draw_placement(generator, crop=crop, horizontal_flip=horizontal_flip)
    return first, first if joint else draw_placement(generator, crop=crop, horizontal_flip=horizontal_flip)
