"""Brightness: a reward without weights, for tests and demos; it saturates at white."""

from collections.abc import Sequence

from alignment_core.rewards.images import check_images
from alignment_core.shapes import Images, PerExample


class Brightness:
    """Mean of all pixel values and channels, in [0, 1]; prompts are not read. Differentiable, float32 [B]."""

    differentiable = True

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        check_images(images, prompts)
        return images.float().mean(dim=(1, 2, 3))
