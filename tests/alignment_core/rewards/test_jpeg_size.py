from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from alignment_core.rewards.jpeg_size import JpegSize


def noise(size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(seed))


def test_the_score_is_minus_the_kilobytes_of_the_saved_file() -> None:
    images = noise(48)
    pixels = np.rint(images[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95)
    expected = len(buffer.getvalue()) / 1000
    assert JpegSize("compressible", 95)(images, [""]).item() == pytest.approx(-expected, rel=1e-6)
    assert JpegSize("incompressible", 95)(images, [""]).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("size", [32, 64, 128, 256, 512])
def test_a_flat_image_compresses_better_than_noise_at_every_size(size: int) -> None:
    images = torch.cat([torch.full((1, 3, size, size), 0.5), noise(size)])
    flat, noisy = JpegSize("compressible", 95)(images, ["", ""])
    assert flat > noisy
    flat, noisy = JpegSize("incompressible", 95)(images, ["", ""])
    assert flat < noisy


def test_pixels_are_rounded_before_they_are_saved() -> None:
    images = noise(32)
    rounded = (images * 255).round() / 255
    reward = JpegSize("compressible", 95)
    assert torch.equal(reward(images, [""]), reward(rounded, [""]))


def test_lower_quality_makes_smaller_files() -> None:
    images = noise(64)
    assert JpegSize("incompressible", 20)(images, [""]) < JpegSize("incompressible", 95)(images, [""])


def test_the_score_carries_no_gradient_and_says_so() -> None:
    reward = JpegSize("compressible", 95)
    assert not reward.differentiable
    assert not reward(noise(16).requires_grad_(), [""]).requires_grad
