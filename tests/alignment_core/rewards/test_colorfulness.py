import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from alignment_core.rewards.colorfulness import Colorfulness


def score(image: Tensor) -> float:
    return Colorfulness()(image[None], [""]).item()


def flat(r: float, g: float, b: float) -> Tensor:
    return torch.tensor([float(r), g, b]).view(3, 1, 1).expand(3, 4, 4)


def test_half_red_half_black_by_hand() -> None:
    # rg is 255 or 0: mean 127.5, deviation 127.5; yb is 127.5 or 0: mean 63.75, deviation 63.75.
    image = torch.zeros(3, 4, 4)
    image[0, :, :2] = 1
    assert score(image) == pytest.approx(1.3 * math.hypot(127.5, 63.75) / 100, rel=1e-6)


def test_four_pixels_by_hand() -> None:
    # (R, G, B) in [0, 255]: (255,0,0), (0,255,0), (0,0,255), (51,51,51): rg = 255,-255,0,0; yb = 127.5,127.5,-255,0.
    pixels = torch.tensor([[255.0, 0, 0], [0, 255, 0], [0, 0, 255], [51, 51, 51]]) / 255
    image = pixels.T.reshape(3, 2, 2)
    var_rg = 2 * 255**2 / 4
    var_yb = (2 * 127.5**2 + 255**2) / 4
    assert score(image) == pytest.approx(math.sqrt(var_rg + var_yb) / 100, rel=1e-6)


def test_a_flat_colour_counts_by_its_offset_alone() -> None:
    assert score(flat(1, 0, 0)) == pytest.approx(0.3 * math.hypot(255, 127.5) / 100, rel=1e-6)
    assert score(flat(0, 0, 1)) == pytest.approx(0.3 * 255 / 100, rel=1e-6)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_grey_image_scores_zero_and_has_a_finite_gradient(level: float) -> None:
    images = torch.full((1, 3, 4, 4), level, requires_grad=True)
    scores = Colorfulness()(images, [""])
    scores.sum().backward()
    assert scores.item() == 0
    assert images.grad is not None
    assert images.grad.isfinite().all()


@pytest.mark.parametrize("noise", [1e-30, 1e-20, 1e-8, 1e-3])
def test_the_gradient_is_finite_next_to_grey(noise: float) -> None:
    generator = torch.Generator().manual_seed(0)
    images = (noise * torch.rand(1, 3, 8, 8, generator=generator)).requires_grad_()
    Colorfulness()(images, [""]).sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()


def test_the_gradient_is_that_of_the_formula() -> None:
    images = 0.2 + 0.6 * torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    images.requires_grad_()
    Colorfulness()(images, ["", ""]).sum().backward()
    assert images.grad is not None
    for index in [(0, 0, 1, 2), (1, 2, 3, 3)]:
        step = torch.zeros_like(images)
        step[index] = 0.05
        with torch.no_grad():
            rise = Colorfulness()(images + step, ["", ""]) - Colorfulness()(images - step, ["", ""])
        assert images.grad[index].item() == pytest.approx(rise.sum().item() / 0.1, rel=2e-2)


@given(saturation=st.floats(0.05, 0.95), seed=st.integers(0, 2**32 - 1))
def test_saturation_scales_the_score(saturation: float, seed: int) -> None:
    image = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(seed))
    grey = image.mean(dim=0, keepdim=True)
    assert score(grey + saturation * (image - grey)) == pytest.approx(saturation * score(image), rel=1e-3)


def test_an_image_is_scored_alone_whatever_its_batch() -> None:
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    together = Colorfulness()(images, [""] * 5)
    alone = torch.cat([Colorfulness()(image[None], [""]) for image in images])
    assert together.dtype == torch.float32
    torch.testing.assert_close(together, alone)
