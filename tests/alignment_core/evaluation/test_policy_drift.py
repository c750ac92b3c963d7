"""How far the policy has moved: in what it predicts, and in its weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from alignment_core.diffusion.discrete_vp import DiscreteVP
from alignment_core.evaluation.policy_drift import DRAWS_PER_BIN, Conditioned, eps_distance
from alignment_core.evaluation.weight_change import relative_change

ABAR = torch.linspace(0.999, 0.005, 1000)
LATENTS = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
CONDITIONING = {"prompt_embeds": torch.arange(3.0).view(3, 1, 1)}


class Shifted:
    """Predicts its input and a shift that may depend on t; remembers what it was asked."""

    def __init__(self, shift: float, slope: float = 0.0) -> None:
        self.shift, self.slope = shift, slope
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, x_t: Tensor, timesteps: Tensor, conditioning: dict[str, Tensor]) -> Tensor:
        self.asked.append((x_t, timesteps, conditioning["prompt_embeds"]))
        return x_t + self.shift + self.slope * timesteps.view(-1, 1, 1, 1)


def measured(base: Shifted, policy: Shifted, batch_size: int = 7) -> tuple[float, list[float]]:
    distance, bins = eps_distance(
        Conditioned(base, CONDITIONING),
        Conditioned(policy, CONDITIONING),
        latents=LATENTS,
        path=DiscreteVP("epsilon", ABAR),
        seed=3,
        batch_size=batch_size,
    )
    return distance, [one.eps_dist for one in bins]


def test_a_constant_shift_is_its_square_in_every_bin() -> None:
    distance, bins = measured(Shifted(0.0), Shifted(0.1))
    assert distance == pytest.approx(0.01, rel=1e-4)
    assert bins == pytest.approx([0.01] * 10, rel=1e-4)


def test_a_model_has_not_moved_from_itself() -> None:
    assert measured(Shifted(0.3), Shifted(0.3)) == (0.0, [0.0] * 10)


def test_the_noisiest_bin_comes_first_and_every_bin_is_measured_alike() -> None:
    policy = Shifted(0.0, slope=1e-3)
    _, bins = measured(Shifted(0.0), policy)
    assert bins == sorted(bins, reverse=True)
    timesteps = torch.cat([asked[1] for asked in policy.asked])
    assert torch.bincount(timesteps // 100).tolist() == [DRAWS_PER_BIN] * 10


def test_both_models_see_the_same_and_every_latent_keeps_its_prompt() -> None:
    base, policy = Shifted(0.0), Shifted(0.1)
    measured(base, policy)
    for one, other in zip(base.asked, policy.asked, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    rows = torch.cat([asked[2] for asked in policy.asked]).flatten()
    assert set(rows.tolist()) == {0.0, 1.0, 2.0}


def test_the_batch_size_changes_no_number() -> None:
    one, other = (measured(Shifted(0.0), Shifted(0.0, slope=1e-3), size) for size in (1, 160))
    assert one[0] == pytest.approx(other[0], rel=1e-6)


@given(st.floats(-3, 3), st.floats(0.1, 5))
def test_the_change_of_weights_is_relative_to_the_initial_model(scale: float, size: float) -> None:
    delta = {"a": torch.full((2, 2), scale), "b": torch.zeros(3)}
    norms = {"a": size, "b": 2.0}
    expected = abs(scale) * 2 / (size**2 + 4) ** 0.5
    assert relative_change({}, delta, norms) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert relative_change(delta, {}, norms) == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert relative_change(delta, delta, norms) == 0
