import pytest
import torch
from torch import Tensor

from alignment_core.rewards.brightness import Brightness
from alignment_core.rewards.colorfulness import Colorfulness
from alignment_core.rewards.images import check_images
from alignment_core.rewards.jpeg_size import JpegSize


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 8, 8), r"\[B, 3, H, W\], got \[3, 8, 8\]"),
        (torch.zeros(2, 8, 8, 3), r"\[B, 3, H, W\], got \[2, 8, 8, 3\]"),
        (torch.zeros(2, 3, 0, 8), r"\[B, 3, H, W\]"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "floating point"),
        (torch.zeros(3, 3, 8, 8), "3 images and 2 prompts"),
        (torch.full((2, 3, 8, 8), 255.0), "values from 255 to 255"),
        (torch.full((2, 3, 8, 8), -1.0), "values from -1 to -1"),
        (torch.full((2, 3, 8, 8), float("nan")), "nan"),
    ],
)
def test_what_is_no_batch_of_images_is_refused_and_named(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_images(images, ["a", "b"])


def test_one_bad_pixel_is_enough_to_refuse_a_batch() -> None:
    images = torch.zeros(2, 3, 8, 8)
    images[1, 2, 7, 7] = 1.01
    with pytest.raises(ValueError, match=r"1\.01"):
        check_images(images, ["a", "b"])


def test_the_rounding_of_a_decoder_is_no_error() -> None:
    check_images(torch.tensor([-1e-4, 1 + 1e-4]).repeat(1, 3, 4, 1), ["a"])


@pytest.mark.parametrize("reward", [Colorfulness(), Brightness(), JpegSize("compressible", 95)])
def test_every_reward_checks_its_images(reward: Colorfulness | Brightness | JpegSize) -> None:
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        reward(torch.full((1, 3, 8, 8), 2.0), ["a"])
