"""Why TailorPO ranks by the reward foreseen from each candidate, and why ratios are means (vectors 8.11 f and g).

Data N(0, 1) and its exact denoiser, eps = sqrt(1 - abar_t) x_t, so that x_0 given a state is known in closed form.
"""

import math

import pytest
import torch

from alignment_core.rollouts.rollout import index_of, log_prob
from tests.alignment_core.rollouts.test_rollout import GRID

DIFFER = {20: 0.4756022, 16: 0.4474634, 12: 0.4127655, 8: 0.3756379, 4: 0.3235006, 2: 0.2527889, 1: 0.3039120}


def exact_eps(x: torch.Tensor, abar: torch.Tensor) -> torch.Tensor:
    return (1 - abar).sqrt() * x


@pytest.mark.parametrize(("number", "expected"), DIFFER.items())
def test_final_images_often_contradict_the_step_that_made_the_difference(number: int, expected: float) -> None:
    """A sibling's final image is drawn given it; D3PO's label of the step is wrong as often as the two orders differ."""
    index, draw = len(GRID) - number, torch.Generator().manual_seed(number)
    abar_prev = GRID.abar_prev[index]
    x_t = torch.full((200_000, 1, 1, 1), 0.7, dtype=torch.float64)
    at = index_of(index, x_t)
    mean = GRID.mean(x_t, exact_eps(x_t, GRID.abar_t[index]), at)
    siblings = [mean + GRID.sigma_t[index] * torch.randn(mean.shape, generator=draw).double() for _ in range(2)]
    foreseen = [abar_prev.sqrt() * x for x in siblings]  # E[x_0 | x_prev]
    final = [x + (1 - abar_prev).sqrt() * torch.randn(x.shape, generator=draw).double() for x in foreseen]
    differ = float(((foreseen[0] > foreseen[1]) != (final[0] > final[1])).double().mean())
    signal = float(abar_prev.sqrt() * GRID.sigma_t[index] / (1 - abar_prev).sqrt())
    assert 0.5 - math.atan(signal) / math.pi == pytest.approx(expected, abs=5e-8)
    assert differ == pytest.approx(expected, abs=0.005)  # 4.5 standard errors


@pytest.mark.parametrize("number", [20, 12, 4])
def test_the_image_foreseen_from_a_candidate_is_its_expectation(number: int) -> None:
    """With the network asked at the candidate's own timestep, ranking by r(x0hat) is ranking by E[r | x] for a linear r."""
    index = len(GRID) - number
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).reshape(-1, 1, 1, 1)
    foreseen = GRID.x_0(x, exact_eps(x, GRID.abar_t[index + 1]), index_of(index + 1, x))
    assert torch.allclose(foreseen, GRID.abar_prev[index].sqrt() * x, rtol=1e-9)


def test_a_mean_ratio_stays_near_one_where_the_sum_s_divergence_is_large() -> None:
    """A shift of 0.01 sigma in each of 16384 dimensions: KL .8192 in all, E[ratio] .9999500043 with the mean."""
    index, draw = 8, torch.Generator().manual_seed(0)
    x_t = torch.randn((300, 4, 64, 64), generator=draw)
    at = index_of(index, x_t)
    eps = torch.zeros_like(x_t)
    mean, sigma = GRID.mean(x_t, eps, at), float(GRID.sigma_t[index])
    slope = float((GRID.mean(x_t, eps + 1, at) - mean).double().mean())
    x_prev = mean + sigma * torch.randn(x_t.shape, generator=draw)
    shifted = eps + 0.01 * sigma / slope
    moved = (GRID.mean(x_t, shifted, at) - mean).double() / sigma
    assert float(0.5 * moved[0].square().sum()) == pytest.approx(0.8192, rel=1e-4)
    log_ratio = log_prob(GRID, x_prev, x_t, shifted, at) - log_prob(GRID, x_prev, x_t, eps, at)
    assert float(log_ratio.double().exp().mean()) == pytest.approx(0.9999500043, abs=2e-5)  # four standard errors
