"""The sampler, lambda(t) and w(t) against vectors worked by hand, in float64, and their invariants."""

import pytest
import torch
from diffusers import DDIMScheduler
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from alignment_core.diffusion.formulas import scaled_linear_abar, snr
from alignment_core.methods.diffusion_dpo import preference_logit, sigmoid_loss
from alignment_core.timesteps.weights import (
    MAX_CORRECTION,
    RunningVariance,
    bin_of,
    bounds_of,
    clip_mean1,
    discounted_probabilities,
    importance_correction,
    logit_normal_density,
    mean1,
    minmax_inv_sqrt_snr,
    probabilities_of_bins,
    sample_in_bins,
    sum1,
    variance_weights,
)


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


UNIFORM3 = f64(1, 1, 1) / 3

P_9 = [0.153534, 0.138181, 0.124363, 0.111926, 0.100734, 0.090660, 0.081594, 0.073435, 0.066091, 0.059482]
P_8 = [0.224058, 0.179246, 0.143397, 0.114718, 0.091774, 0.073419, 0.058735, 0.046988, 0.037591, 0.030073]


@pytest.mark.parametrize(("gamma", "expected"), [(0.9, P_9), (0.8, P_8)])
def test_the_discounted_sampler_has_the_probabilities_of_the_reference(gamma: float, expected: list[float]) -> None:
    assert discounted_probabilities(gamma, 10).tolist() == pytest.approx(expected, abs=5e-7)


def test_fifty_bins_reach_from_a_tenth_to_almost_nothing() -> None:
    p = discounted_probabilities(0.9, 50)
    assert p[0].item() == pytest.approx(0.1005180474, rel=1e-9)
    assert p[-1].item() == pytest.approx(5.756082452e-4, rel=1e-9)
    assert discounted_probabilities(0.9, 10)[:5].sum().item() == pytest.approx(0.629, abs=5e-4)
    assert p[:5].sum().item() == pytest.approx(0.412, abs=5e-4)


def test_bin_0_is_the_noisiest() -> None:
    assert bin_of(torch.tensor([0, 99, 100, 999]), 10, 1000).tolist() == [9, 9, 8, 0]


@given(st.integers(1, 60), st.integers(60, 1000))
def test_bounds_are_those_of_the_bins(num_bins: int, num_timesteps: int) -> None:
    covered = []
    for number in range(num_bins - 1, -1, -1):
        first, last = bounds_of(number, num_bins, num_timesteps)
        inside = torch.arange(first, last + 1)
        assert set(bin_of(inside, num_bins, num_timesteps).tolist()) == {number}
        covered += inside.tolist()
    assert covered == list(range(num_timesteps))


@given(st.floats(0.05, 1.0), st.integers(1, 50))
def test_probabilities_sum_to_one_and_never_fall_towards_noise(gamma: float, num_bins: int) -> None:
    p = discounted_probabilities(gamma, num_bins)
    assert p.sum().item() == pytest.approx(1)
    assert bool((p.diff() <= 0).all())
    assert torch.allclose(discounted_probabilities(1.0, num_bins), torch.full_like(p, 1 / num_bins))


def test_draws_follow_the_probabilities_and_fill_every_bin() -> None:
    p = discounted_probabilities(0.9, 10)
    t = sample_in_bins(p, 1000, 200_000, torch.Generator().manual_seed(0))
    share = torch.bincount(bin_of(t, 10, 1000), minlength=10).double() / len(t)
    assert torch.allclose(share, p, atol=4e-3)
    assert (t.min().item(), t.max().item()) == (0, 999)
    inside = t[(t >= 900)] - 900
    assert torch.allclose(torch.bincount(inside, minlength=100) / len(inside), torch.full((100,), 0.01), atol=2e-3)


def test_lambda_runs_from_1_at_the_cleanest_step_to_2_at_the_noisiest() -> None:
    scale = minmax_inv_sqrt_snr(snr(scaled_linear_abar()))
    expected = {0: 1.0, 250: 1.045705184, 500: 1.108951664, 750: 1.279044539, 900: 1.57025431, 999: 2.0}
    assert {t: scale[t].item() for t in expected} == pytest.approx(expected, rel=1e-9)
    assert scale.mean().item() == pytest.approx(1.205145322, rel=1e-9)


def test_a_step_without_signal_counts_like_the_noisiest_that_has_some() -> None:
    abar = scaled_linear_abar().clone()
    abar[-1] = 0.0
    scale = minmax_inv_sqrt_snr(snr(abar.double()))
    assert scale[-1] == scale[-2] == 2.0
    assert bool(scale.isfinite().all())


def test_a_zero_terminal_snr_schedule_ends_at_the_last_step_with_signal() -> None:
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", rescale_betas_zero_snr=True
    )
    abar = scheduler.alphas_cumprod
    assert abar[-1] == 0 < abar[-2]
    q = ((1 - abar[:-1].double()) / abar[:-1].double()).sqrt()
    scale = minmax_inv_sqrt_snr(snr(abar.double()))
    assert torch.allclose(scale[:-1], 1 + (q - q[0]) / (q[-1] - q[0]))
    assert scale[-1] == scale[-2] == 2.0


@given(st.floats(-3, 3), st.floats(0.3, 10), st.integers(10, 1000), st.integers(1, 10))
def test_a_logit_normal_density_sums_to_one_over_timesteps_and_bins(
    mean: float, std: float, num_timesteps: int, num_bins: int
) -> None:
    density = logit_normal_density(mean, std, num_timesteps)
    assert bool((density >= 0).all())
    assert density.sum().item() == pytest.approx(1)
    assert probabilities_of_bins(density, num_bins).sum().item() == pytest.approx(1)
    assert torch.allclose(density.flip(0), logit_normal_density(-mean, std, num_timesteps))


V = f64(4, 1, 0.25)


@pytest.mark.parametrize(
    ("power", "direction", "expected"),
    [
        (0.5, "inverse", [0.142857, 0.285714, 0.571429]),
        (1.0, "inverse", [0.047619, 0.190476, 0.761905]),
        (0.5, "direct", [0.571429, 0.285714, 0.142857]),
    ],
)
def test_sum1_weights_have_the_values_of_the_reference(power: float, direction: str, expected: list[float]) -> None:
    w = variance_weights(V, power, direction)  # pyright: ignore[reportArgumentType]
    assert sum1(w).tolist() == pytest.approx(expected, abs=5e-7)


def test_mean1_weights_have_the_values_of_the_reference() -> None:
    w = variance_weights(V, 0.5, "inverse")
    assert mean1(w, UNIFORM3).tolist() == pytest.approx([0.428571, 0.857143, 1.714286], abs=5e-7)
    p = discounted_probabilities(0.9, 3)
    assert p.tolist() == pytest.approx([0.369004, 0.332103, 0.298893], abs=5e-7)
    assert mean1(w, p).tolist() == pytest.approx([0.448675, 0.897351, 1.794702], abs=5e-7)


def test_weighted_losses_have_the_values_of_the_reference() -> None:
    losses, w = f64(0.5, 0.7, 0.9), variance_weights(V, 0.5, "inverse")
    assert (mean1(w, UNIFORM3) * losses).mean().item() == pytest.approx(0.7857142857, rel=1e-9)
    assert (sum1(w) * losses).mean().item() == pytest.approx(0.2619047619, rel=1e-9)
    equal = variance_weights(f64(2, 2, 2), 0.5, "inverse")
    assert (mean1(equal, UNIFORM3) * losses).mean().item() == pytest.approx(0.7)


def test_clipped_weights_have_the_values_of_the_reference() -> None:
    w = variance_weights(f64(4, 1, 1e-4), 0.5, "inverse")
    clipped = clip_mean1(w, UNIFORM3, 0.2, 2.5)
    assert clipped.tolist() == pytest.approx([0.206897, 0.206897, 2.586207], abs=5e-7)


variances = st.lists(st.floats(1e-8, 1e3), min_size=2, max_size=20)


@given(variances, st.sampled_from([0.5, 1.0]), st.sampled_from(["inverse", "direct"]), st.floats(0.3, 1.0))
def test_mean1_weights_average_1_under_the_sampler(
    values: list[float], power: float, direction: str, gamma: float
) -> None:
    p = discounted_probabilities(gamma, len(values))
    w = variance_weights(f64(*values), power, direction)  # pyright: ignore[reportArgumentType]
    assert (p * mean1(w, p)).sum().item() == pytest.approx(1)
    assert (p * clip_mean1(w, p, 0.2, 5.0)).sum().item() == pytest.approx(1)


@given(st.lists(st.floats(1e-12, 1), min_size=1, max_size=30), st.integers(0, 5))
def test_a_correction_averages_1_under_the_sampler_and_is_bounded(weights: list[float], num_never_drawn: int) -> None:
    p = torch.cat([f64(*weights) / sum(weights), torch.zeros(num_never_drawn, dtype=torch.float64)])
    shares = torch.full_like(p, 1 / len(p))
    w = importance_correction(p, shares)
    assert (p * w).sum().item() == pytest.approx(1)
    assert bool((w > 0).all())
    if bool((shares[p > 0] / p[p > 0] < MAX_CORRECTION).all()):
        assert torch.allclose((p * w)[p > 0], torch.full((len(weights),), 1 / len(weights), dtype=torch.float64))


@given(st.floats(1e-8, 1e3), st.integers(2, 20), st.floats(0.3, 1.0))
def test_equal_variances_give_the_plain_mean(variance: float, num_bins: int, gamma: float) -> None:
    p = discounted_probabilities(gamma, num_bins)
    w = mean1(variance_weights(torch.full((num_bins,), variance, dtype=torch.float64), 0.5, "inverse"), p)
    assert torch.allclose(w, torch.ones_like(w))


def test_a_factor_inside_the_sigmoid_is_not_the_factor_outside() -> None:
    def loss_and_gradient(m_w: float, inside: float, outside: float) -> tuple[float, float]:
        leaf = f64(m_w).requires_grad_()
        u = preference_logit(leaf, f64(0.1010), f64(0.1004), f64(0.1008), 5000.0)
        loss = outside * sigmoid_loss(inside * u)
        loss.sum().backward()
        assert leaf.grad is not None
        return loss.item(), leaf.grad.item()

    assert loss_and_gradient(0.1, 2.0, 1.0) == pytest.approx((0.04858735157, 237.1293659), rel=1e-8)
    assert loss_and_gradient(0.1, 1.0, 2.0) == pytest.approx((0.4028265560, 912.1276190), rel=1e-8)
    assert loss_and_gradient(0.1006, 2.0, 1.0)[1] == pytest.approx(2500)  # u = 0
    assert loss_and_gradient(0.1006, 1.0, 2.0)[1] == pytest.approx(2500)


def test_the_running_variance_has_the_values_of_the_reference() -> None:
    running, seen = RunningVariance.of(1, 0.9), []
    for batch in ([1.0, 3.0], [2.0], [0.0, 4.0]):
        running.add(torch.zeros(len(batch), dtype=torch.int64), torch.tensor(batch))
        seen.append(running.variances().item())
    assert seen == pytest.approx([1, 0.4736842105, 1.774907749], rel=1e-9)


def test_a_bin_without_samples_keeps_its_statistics() -> None:
    running = RunningVariance.of(2, 0.9)
    running.add(torch.tensor([0, 0]), torch.tensor([1.0, 3.0]))
    running.add(torch.tensor([1, 1]), torch.tensor([5.0, 5.0]))
    assert running.variances().tolist() == pytest.approx([1.0, 0.0])
    assert running.num_samples.tolist() == [2, 2]


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(-10, 10)), min_size=1, max_size=60), st.randoms())
def test_the_order_of_a_steps_examples_does_not_matter(examples: list[tuple[int, float]], random: object) -> None:
    shuffled = list(examples)
    random.shuffle(shuffled)  # pyright: ignore[reportAttributeAccessIssue]
    one, other = RunningVariance.of(5, 0.99), RunningVariance.of(5, 0.99)
    for running, order in ((one, examples), (other, shuffled)):
        running.add(torch.tensor([number for number, _ in order]), torch.tensor([value for _, value in order]))
    assert torch.allclose(one.variances(), other.variances(), atol=1e-9)
