"""The straight path between image and noise, and the steps with noise along it, against the reference and by hand."""

import math

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from alignment_core.diffusion.formulas import regression_error, step_log_prob
from alignment_core.diffusion.rectified_flow import FlowGrid, RectifiedFlow

PATH = RectifiedFlow(1000, shift=3.0, sampling_shift=3.0)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_step(s: float, s_next: float, eta: float) -> FlowGrid:
    at, to = torch.tensor([s], dtype=torch.float64), torch.tensor([s_next], dtype=torch.float64)
    return FlowGrid(torch.tensor([0]), at, to, eta, 1000)


def test_the_levels_and_times_are_those_of_diffusers_table() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    assert torch.allclose(PATH.levels.float(), scheduler.sigmas.flip(0), rtol=2e-7)
    assert torch.allclose(PATH.time(torch.arange(1000)), scheduler.timesteps.flip(0), rtol=1e-6)


@given(st.integers(0, 999), st.integers(0, 2**31))
def test_velocity_leads_back_to_the_image_and_to_the_noise(t: int, seed: int) -> None:
    x_0, eps = drawn(seed, 2, 1, 4, 3, 3)
    at = torch.tensor([t])
    x_s, v = PATH.noisy(x_0, eps, at), PATH.target(x_0, eps, at)
    assert torch.allclose(PATH.x_0(x_s, v, at), x_0, rtol=1e-9, atol=1e-12)
    assert torch.allclose(PATH.eps(x_s, v, at), eps, rtol=1e-9, atol=1e-12)


@given(st.integers(0, 998), st.integers(0, 2**31))
def test_errors_in_v_are_errors_in_eps_over_the_square_of_the_signal(t: int, seed: int) -> None:
    x_s, v, other = drawn(seed, 3, 1, 4, 3, 3)
    at = torch.tensor([t])
    in_eps = regression_error(PATH.eps(x_s, v, at), PATH.eps(x_s, other, at))
    assert (PATH.eps_scale(at) * regression_error(v, other)).item() == pytest.approx(in_eps.item(), rel=1e-6)
    assert RectifiedFlow(10, 1.0, 1.0).eps_scale(torch.tensor([4])).item() == pytest.approx(1 / 4)


def test_the_signal_to_noise_ratio_is_bounded_where_the_image_is_gone() -> None:
    plain = RectifiedFlow(1000, 1.0, 1.0).snr
    assert plain[499].item() == pytest.approx(1.0)
    assert plain[0].item() == pytest.approx(999.0**2)
    assert plain[-1].item() == plain[979].item() == pytest.approx((0.02 / 0.98) ** 2)


def test_a_grid_of_shift_three_has_the_published_levels() -> None:
    expected = [1, 0.96013, 0.91335, 0.85769, 0.79037, 0.70728, 0.60215, 0.46488, 0.27805, 0.00893]
    grid = PATH.grid(10, 0.7)
    assert grid.s.tolist() == pytest.approx(expected, abs=5e-6)
    assert grid.s_next.tolist() == [*grid.s.tolist()[1:], 0]
    assert (PATH.levels[grid.timesteps] - grid.s).abs().max() < 0.003


@pytest.mark.parametrize("num_steps", [1, 2, 7, 28])
def test_grids_are_diffusers_own(num_steps: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(num_steps)
    grid = PATH.grid(num_steps, 0.0)
    index = torch.arange(num_steps)
    assert torch.allclose(torch.cat([grid.s, torch.zeros(1)]).float(), scheduler.sigmas, rtol=1e-6)
    assert torch.allclose(grid.time(index, torch.zeros(1)), scheduler.timesteps, rtol=1e-6)


def test_an_even_grid_with_its_own_shift_is_diffusers_dynamic_shifting() -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    scheduler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25], mu=0.9)
    grid = RectifiedFlow(1000, shift=1.0, sampling_shift=math.exp(0.9), spacing="even").grid(4, 0.0)
    assert torch.allclose(grid.s.float(), scheduler.sigmas[:-1], rtol=1e-6)


def test_there_are_no_more_steps_than_timesteps() -> None:
    with pytest.raises(ValueError, match="11 sampling steps, and the model has 10 timesteps"):
        RectifiedFlow(10, 1.0, 1.0).grid(11, 0.0)


def test_a_step_with_noise_has_the_published_mean_deviation_and_log_probability() -> None:
    grid, at = one_step(0.8, 0.7, 0.7), torch.tensor([0])
    x, v = (torch.full((1, 1, 1, 1), value, dtype=torch.float64) for value in (0.6, -0.4))
    mu, sigma = grid.mean(x, v, at), grid.sigma(at, x)
    assert mu.item() == pytest.approx(0.5763, rel=1e-9)
    assert sigma.item() == pytest.approx(0.4427188724, rel=1e-9)
    x_next = mu + sigma.reshape(1, 1, 1, 1)
    assert step_log_prob(x_next, mu, sigma).item() == pytest.approx(-0.6041182233, rel=1e-9)
    kl = 0.01**2 / (2 * sigma.item() ** 2)
    assert kl == pytest.approx(2.551020408e-4, rel=1e-9)
    assert one_step(0.8, 0.7, 0.0).mean(x, v, at).item() == pytest.approx(0.64, rel=1e-9)


@given(st.integers(0, 9), st.integers(0, 2**31))
def test_steps_without_noise_are_eulers_as_diffusers_takes_them(index: int, seed: int) -> None:
    x, v = drawn(seed, 2, 1, 4, 3, 3).float()
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0)
    scheduler.set_timesteps(10)
    scheduler.set_begin_index(index)
    expected = scheduler.step(v, scheduler.timesteps[index], x, return_dict=False)[0]
    found = PATH.grid(10, 0.0).mean(x, v, torch.tensor([index]))
    assert torch.allclose(found, expected, atol=1e-6)


@given(st.floats(0.05, 0.95), st.floats(0.1, 0.9), st.integers(0, 2**31))
def test_noise_changes_the_spread_of_the_step_and_not_where_the_score_leads(s: float, part: float, seed: int) -> None:
    """mu = x + (v - g^2/2 score) dt, with the score -eps/s of the path."""
    grid, at = one_step(s, s * part, 0.7), torch.tensor([0])
    x, v = drawn(seed, 2, 1, 2, 2, 2)
    g_squared = 0.49 * s / (1 - s)
    score = -grid.eps(x, v, at) / s
    expected = x + (v - 0.5 * g_squared * score) * (s * part - s)
    assert torch.allclose(grid.mean(x, v, at), expected, rtol=1e-9, atol=1e-12)


def test_pure_noise_counts_as_the_second_level_in_g_alone() -> None:
    grid, at = PATH.grid(10, 0.7), torch.tensor([0])
    second = float(grid.s[1])
    g = 0.7 * math.sqrt(1 / (1 - second))
    assert grid.sigma_t[0].item() == pytest.approx(g * math.sqrt(1 - second), rel=1e-12)
    x, v = drawn(3, 2, 1, 2, 2, 2)
    dt = second - 1
    assert torch.allclose(grid.mean(x, v, at), x * (1 + g**2 / 2 * dt) + v * dt, rtol=1e-12)
    assert bool((grid.sigma_t > 0).all())
    assert bool(grid.sigma_t.isfinite().all())


def test_the_image_of_a_fixed_noise_is_the_one_that_the_prediction_stands_for() -> None:
    grid, at = PATH.grid(10, 0.7), torch.tensor([4])
    x, v = drawn(5, 2, 1, 2, 2, 2)
    assert torch.allclose(grid.x_0_of_eps(x, grid.eps(x, v, at), at), grid.x_0(x, v, at), rtol=1e-9)
    x.requires_grad_(True)
    (slope,) = torch.autograd.grad(grid.x_0_of_eps(x, grid.eps(x, v, at).detach(), at).sum(), x)
    assert torch.allclose(slope, torch.full_like(x, 1 / (1 - float(grid.s[4]))))


@given(st.integers(1, 30), st.integers(0, 2**31))
def test_the_exact_velocity_of_one_image_leads_to_it_in_any_number_of_steps(num_steps: int, seed: int) -> None:
    image, x = drawn(seed, 2, 1, 2, 2, 2)
    grid = PATH.grid(num_steps, 0.0)
    for index in range(num_steps):
        x = grid.mean(x, (x - image) / grid.s[index], torch.tensor([index]))
    assert torch.allclose(x, image, rtol=1e-9, atol=1e-9)
