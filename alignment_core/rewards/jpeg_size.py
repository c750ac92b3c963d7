"""Size as JPEG: the compressibility rewards of DDPO (arXiv 2305.13301).

Best scores of `compressible` are blank images, so this reward is for tests. Below 32 pixels the file's 0.63 kB header
dominates, and values depend on the JPEG library: compare orderings, not constants.
"""

from collections.abc import Sequence
from io import BytesIO
from typing import Literal, assert_never

import torch
from numpy import ndarray
from PIL import Image

from alignment_core.rewards.images import check_images
from alignment_core.shapes import Images, PerExample

Direction = Literal["compressible", "incompressible"]


class JpegSize:
    """Bytes of the image as JPEG divided by 1000: minus that for `compressible`, plus for `incompressible`.

    Pixels are `round(255 x)`, `quality` is 1 to 100. float32 [B], not differentiable; prompts are not read.
    """

    differentiable = False

    def __init__(self, direction: Direction, quality: int) -> None:
        match direction:
            case "compressible":
                self._sign = -1
            case "incompressible":
                self._sign = 1
            case _:
                assert_never(direction)
        self._quality = quality

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        check_images(images, prompts)
        pixels = (255 * images.detach().float()).round().clamp(0, 255).byte()
        sizes = [_jpeg_bytes(image, self._quality) for image in pixels.permute(0, 2, 3, 1).cpu().numpy()]
        return torch.tensor(sizes, dtype=torch.float32, device=images.device) * self._sign / 1000


def _jpeg_bytes(pixels: ndarray, quality: int) -> int:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format="JPEG", quality=quality)
    return buffer.tell()
