"""Left-right symmetry: a reward without weights whose optimum is easy to see and to collapse to."""

from collections.abc import Sequence

from alignment_core.rewards.images import check_images
from alignment_core.shapes import Images, PerExample


class Symmetry:
    """`-mean((x - mirror x)^2)` over channels and pixels, in [-1, 0]; prompts are not read. Differentiable, float32 [B]."""

    differentiable = True

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        check_images(images, prompts)
        images = images.float()
        return -(images - images.flip(-1)).square().mean(dim=(1, 2, 3))
