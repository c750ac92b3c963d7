import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from alignment_core.rewards.brightness import Brightness
from alignment_core.rewards.build import build_reward
from alignment_core.rewards.jpeg_size import JpegSize
from alignment_core.rewards.symmetry import Symmetry
from alignment_core.rewards.weighted_sum import WeightedSum
from alignment_core.spec import RewardSpec

CPU = torch.device("cpu")


def parse(*parts: dict) -> RewardSpec:
    return TypeAdapter[RewardSpec](RewardSpec).validate_python({"type": "weighted_sum", "parts": parts})


def part(weight: float, kind: str, **fields: object) -> dict:
    return {"weight": weight, "reward": {"type": kind, **fields}}


def images() -> torch.Tensor:
    return torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_score_is_the_sum_of_weight_times_score() -> None:
    reward = build_reward(parse(part(2.5, "brightness"), part(-0.5, "symmetry")), CPU)
    prompts = [""] * 3
    expected = 2.5 * Brightness()(images(), prompts) - 0.5 * Symmetry()(images(), prompts)
    torch.testing.assert_close(reward(images(), prompts), expected)


def test_the_gradient_is_the_weighted_sum_too() -> None:
    x = images().requires_grad_()
    (gradient,) = torch.autograd.grad(WeightedSum([(3.0, Brightness())])(x, [""] * 3).sum(), x)
    torch.testing.assert_close(gradient, torch.full_like(x, 3 / (3 * 8 * 8)))


def test_one_part_without_a_gradient_makes_the_sum_one() -> None:
    assert WeightedSum([(1.0, Brightness()), (1.0, Symmetry())]).differentiable
    assert not WeightedSum([(1.0, Brightness()), (1.0, JpegSize("compressible", 95))]).differentiable


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((), "parts"),
        ((part(1, "brightness"), part(2, "brightness")), "unique; set `name` to tell these apart: brightness"),
        ((part(0, "brightness"),), "weight of 0"),
        ((part(float("nan"), "brightness"),), "weight"),
        ((part(1, "weighted_sum", parts=[part(1, "brightness")]),), "weighted_sum"),
    ],
)
def test_a_sum_that_means_nothing_is_refused(parts: tuple[dict, ...], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        parse(*parts)


def test_two_parts_of_a_type_are_told_apart_by_their_names() -> None:
    spec = parse(part(1, "jpeg_size", name="fine"), part(1, "jpeg_size", name="coarse", quality=10))
    assert build_reward(spec, CPU)(images(), [""] * 3).shape == (3,)
