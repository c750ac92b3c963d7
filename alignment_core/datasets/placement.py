"""Where an image's pixels come from: resized, cropped, perhaps mirrored. Imports no torch, so that processes that only decode start quickly."""

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Placement:
    """Where to crop, as shares in [0, 1) of the room there is (None: the centre), and whether to mirror."""

    top: float | None = None
    left: float | None = None
    flip: bool = False


CENTER = Placement()


def placed(image: Image.Image, resolution: int, placement: Placement = CENTER) -> np.ndarray:
    """uint8 `[resolution, resolution, 3]` of an RGB image."""
    image = _resize_shorter_side(image, resolution)
    top = _offset(image.height - resolution, placement.top)
    left = _offset(image.width - resolution, placement.left)
    image = image.crop((left, top, left + resolution, top + resolution))
    if placement.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return np.array(image)


def frame_of(image: Image.Image, resolution: int, placement: Placement = CENTER) -> tuple[int, int, int, int]:
    """Height and width of the image, top and left of what `placed` takes; a mirrored image is mirrored before the crop."""
    width, height = _resized(image.size, resolution)
    top, left = _offset(height - resolution, placement.top), _offset(width - resolution, placement.left)
    if placement.flip:
        left = width - resolution - left
    return image.height, image.width, top, left


def _resized(size: tuple[int, int], resolution: int) -> tuple[int, int]:
    """Width and height, the shorter of them the resolution."""
    width, height = (side * resolution // min(size) for side in size)
    return width, height


def _resize_shorter_side(image: Image.Image, resolution: int) -> Image.Image:
    if min(image.size) == resolution:
        return image
    return image.resize(_resized(image.size, resolution), Image.Resampling.BILINEAR)


def _offset(room: int, share: float | None) -> int:
    return round(room / 2) if share is None else int(share * (room + 1))
