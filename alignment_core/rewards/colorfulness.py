"""Colourfulness after Hasler and Suesstrunk, "Measuring colourfulness in natural images" (2003), their M3."""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignment_core.rewards.images import check_images
from alignment_core.shapes import Images, PerExample


class Colorfulness:
    """How colourful each image is; prompts are not read.

    With R, G, B in [0, 255], rg = R - G and yb = (R + G)/2 - B:
    `(sqrt(var rg + var yb) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2)) / 100`, population variances. float32 [B]; 0 is grey,
    photographs reach about 1. Differentiable, with a zero gradient where an image is exactly grey.
    """

    differentiable = True

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        check_images(images, prompts)
        r, g, b = (255 * images.float()).flatten(2).unbind(dim=1)
        rg, yb = r - g, (r + g) / 2 - b
        spread = _sqrt(rg.var(dim=1, correction=0) + yb.var(dim=1, correction=0))
        offset = _sqrt(rg.mean(dim=1).square() + yb.mean(dim=1).square())
        return (spread + 0.3 * offset) / 100


def _sqrt(x: Tensor) -> Tensor:
    """sqrt with gradient 0 instead of infinity at 0: the infinity would turn a grey image's gradient into NaN."""
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1).sqrt(), 0)
