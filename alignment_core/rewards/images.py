"""What every reward model expects of the images it is given."""

from collections.abc import Sequence

from alignment_core.shapes import Images

TOLERANCE = 1e-3  # decoders and resizing overshoot [0, 1] by rounding, not by more


def check_images(images: Images, prompts: Sequence[str]) -> None:
    """Raises ValueError unless `images` is float [B, 3, H, W] in [0, 1] with one prompt an image."""
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
        raise ValueError(f"images must have the shape [B, 3, H, W], got {list(images.shape)}")
    if not images.is_floating_point():
        raise ValueError(f"images must be floating point in [0, 1], got {images.dtype}")
    if len(images) != len(prompts):
        raise ValueError(f"every image needs a prompt: got {len(images)} images and {len(prompts)} prompts")
    low, high = (value.item() for value in images.detach().aminmax())
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):  # also refuses NaN
        raise ValueError(f"images must lie in [0, 1], got values from {low:g} to {high:g}")
