"""The online losses worked by hand: the vectors of the reference, in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from alignment_core.diffusion.discrete_vp import ddim_grid
from alignment_core.diffusion.formulas import scaled_linear_abar, step_log_prob
from alignment_core.methods.d3po import d3po_logit
from alignment_core.methods.ddpo import advantages, clipped_surrogate
from alignment_core.methods.dpok import dpok_loss
from alignment_core.methods.tailorpo import RewardGuidance, branching_margin, clamped_margin, climb, margin_loss

finite = st.floats(-2, 2, allow_nan=False)


def one(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def latent(*values: float) -> Tensor:
    return one(*values).reshape(1, 1, 1, -1)


# --- D3PO ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratios", "h", "loss"),
    [
        ((0.05, -0.02), 1, 0.6896533055),
        ((0.05, -0.02), -1, 0.6966533055),
        ((0.05, -0.02), 0, math.log(2)),
        ((0.5, -0.5), 1, 0.6831639809),
    ],
)
def test_d3po_by_hand(ratios: tuple[float, float], h: int, loss: float) -> None:
    logit = d3po_logit(one(ratios[0]), one(ratios[1]), one(h), beta=0.1, ratio_clamp=0.1)
    assert -torch.nn.functional.logsigmoid(logit).item() == pytest.approx(loss, rel=1e-9)


def test_d3po_has_no_gradient_outside_its_clamp_and_none_for_a_tie() -> None:
    for ratio, h, expected in ((0.5, 1, 0.0), (0.05, 0, 0.0), (0.05, 1, 0.1)):
        log_ratio = one(ratio).requires_grad_(True)
        d3po_logit(log_ratio, one(0.0), one(h), beta=0.1, ratio_clamp=0.1).sum().backward()
        assert log_ratio.grad is not None
        assert log_ratio.grad.item() == pytest.approx(expected, rel=1e-9)


@given(finite, finite)
def test_d3po_s_loss_lives_between_the_logarithms_of_the_clamp(ratio_0: float, ratio_1: float) -> None:
    logit = d3po_logit(one(ratio_0), one(ratio_1), one(1), beta=0.1, ratio_clamp=0.1)
    assert 0.683163 <= -torch.nn.functional.logsigmoid(logit).item() <= 0.703232


def test_a_sum_over_a_whole_latent_does_not_overflow_the_clamped_ratio() -> None:
    log_ratio = torch.tensor([800.0, -800.0, 0.02], requires_grad=True)
    d3po_logit(log_ratio, torch.zeros(3), torch.ones(3), beta=0.1, ratio_clamp=0.1).sum().backward()
    assert log_ratio.grad is not None
    assert log_ratio.grad.tolist() == pytest.approx([0, 0, 0.1])


# --- DPOK and DDPO -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("log_ratio", "loss", "gradient"), [(2e-4, -8.00077, 0.0), (5e-5, -8.00037001, -8.00040001)])
def test_dpok_by_hand(log_ratio: float, loss: float, gradient: float) -> None:
    ratio = one(log_ratio).requires_grad_(True)
    value = dpok_loss(ratio, one(0.8), one(0.003), ratio_clamp=1e-4, reward_weight=10.0, kl_weight=0.01)
    value.sum().backward()
    assert value.item() == pytest.approx(loss, rel=1e-9)
    assert ratio.grad is not None
    assert ratio.grad.item() == pytest.approx(gradient, rel=1e-8)


def test_dpok_has_no_gradient_and_no_overflow_far_outside_its_clamp() -> None:
    ratio = torch.tensor([90.0, -90.0], requires_grad=True)
    value = dpok_loss(ratio, torch.ones(2), torch.zeros(2), ratio_clamp=1e-4, reward_weight=10.0, kl_weight=0.01)
    value.sum().backward()
    assert value.tolist() == pytest.approx([-10.001, -9.999])
    assert ratio.grad is not None
    assert ratio.grad.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("advantage", "rho", "loss", "has_gradient"),
    [
        (1, 1.00005, -1.00005, True),
        (1, 1.0002, -1.0001, False),
        (-1, 1.0002, 1.0002, True),
        (-1, 0.9998, 0.9999, False),
    ],
)
def test_ddpo_by_hand(advantage: float, rho: float, loss: float, has_gradient: bool) -> None:
    log_ratio = one(math.log(rho)).requires_grad_(True)
    value = clipped_surrogate(log_ratio, one(advantage), 1e-4)
    value.sum().backward()
    assert value.item() == pytest.approx(loss, rel=1e-9)
    assert log_ratio.grad is not None
    assert (log_ratio.grad.item() != 0) is has_gradient


def test_the_first_ppo_step_is_the_policy_gradient() -> None:
    log_ratio = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    clipped_surrogate(log_ratio, one(2, -1, 0.5), 1e-4).sum().backward()
    assert log_ratio.grad is not None
    assert log_ratio.grad.tolist() == [-2, 1, -0.5]


def test_advantages_over_the_batch_and_within_prompts() -> None:
    rewards = one(1, 2, 3, 4)
    assert advantages(rewards).tolist() == pytest.approx([-1.341641, -0.447214, 0.447214, 1.341641], abs=1e-6)
    within = advantages(rewards, [0, 0, 1, 1], eps=1e-6).tolist()
    assert within == pytest.approx([-0.999998, 0.999998] * 2, abs=1e-6)


@given(st.lists(finite, min_size=2, max_size=8))
def test_advantages_add_up_to_nothing(rewards: list[float]) -> None:
    assert advantages(one(*rewards)).sum().item() == pytest.approx(0, abs=1e-6)


# --- TailorPO ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("reduction", "divisor"), [("sum", 1), ("mean", 4)])
def test_tailorpo_s_gradient_by_hand(reduction: str, divisor: int) -> None:
    x_w, x_l = latent(0.5, 0.3, 0.1, -0.2), latent(-0.1, 0.2, 0.6, 0.4)
    mu_ref = latent(0.2, -0.1, 0.4, 0)
    mu, sigma = mu_ref.clone().requires_grad_(True), one(0.5)
    loss = margin_loss(branching_margin(x_w, x_l, mu, mu_ref, sigma, reduction), 0.1)
    loss.sum().backward()
    assert loss.item() == pytest.approx(math.log(2), rel=1e-9)
    assert mu.grad is not None
    assert (mu.grad * divisor).flatten().tolist() == pytest.approx([-0.12, -0.02, 0.10, 0.12], rel=1e-9)
    if reduction == "sum":
        moved = mu.detach() - mu.grad
        gains = [step_log_prob(x, moved, sigma, "sum") - step_log_prob(x, mu_ref, sigma, "sum") for x in (x_w, x_l)]
        assert [gain.item() for gain in gains] == pytest.approx([0.3136, -0.4704], rel=1e-9)


def test_the_inner_product_is_the_difference_of_log_ratios() -> None:
    grid = ddim_grid("epsilon", scaled_linear_abar(), range(951, 0, -50), eta=1.0, final_abar=0.99915)
    x_t, at = latent(0.5, -1, 0.25, 2), torch.tensor([8])
    mu_ref = grid.mean(x_t, latent(0.4, -0.8, 0.1, 1.5), at)
    mu = grid.mean(x_t, latent(0.5, -0.7, 0, 1.6), at)
    sigma = grid.sigma(at, x_t)
    x_w, x_l = mu_ref + sigma * latent(1, -0.5, 0.2, -1), mu_ref + sigma * latent(-0.4, 0.3, 0.6, -0.2)
    for reduction, expected, loss in (("sum", -0.01270122751, 0.6937824436), ("mean", -0.003175306877, 0.6933059585)):
        product = branching_margin(x_w, x_l, mu, mu_ref, sigma, reduction)
        by_logs = sum(
            sign * (step_log_prob(x, mu, sigma, reduction) - step_log_prob(x, mu_ref, sigma, reduction))
            for sign, x in ((1, x_w), (-1, x_l))
        )
        assert product.item() == pytest.approx(expected, rel=1e-8)
        assert float(by_logs) == pytest.approx(expected, rel=1e-8)
        assert margin_loss(product, 0.1).item() == pytest.approx(loss, rel=1e-9)


@given(st.integers(0, 2**31), st.floats(0.01, 10))
def test_the_mean_convention_is_the_sum_with_beta_over_d(seed: int, beta: float) -> None:
    draws = torch.randn(4, 2, 3, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    sigma = one(0.5, 0.2)
    mean, total = (branching_margin(*draws, sigma, reduction) for reduction in ("mean", "sum"))
    assert torch.allclose(margin_loss(mean, beta), margin_loss(total, beta / 12))


@given(st.integers(0, 2**31), st.sampled_from(["mean", "sum"]))
def test_a_wide_clamp_changes_nothing_and_a_ratio_outside_a_narrow_one_pulls_no_more(seed: int, reduction: str) -> None:
    draws = torch.randn(4, 2, 1, 2, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    x_w, x_l, shift, mu_ref = draws
    sigma = one(0.5, 0.2)
    mu = (mu_ref + 1e-3 * shift).requires_grad_(True)
    plain = branching_margin(x_w, x_l, mu, mu_ref, sigma, reduction)
    assert torch.allclose(clamped_margin(x_w, x_l, mu, mu_ref, sigma, 0.999, reduction), plain, atol=1e-12)
    narrow = clamped_margin(x_w, x_l, mu, mu_ref, sigma, 1e-12, reduction)
    (gradient,) = torch.autograd.grad(narrow.sum(), mu)
    assert narrow.abs().max() <= 2.1e-12
    assert torch.count_nonzero(gradient) == 0


def test_guidance_by_hand() -> None:
    x, w = latent(0.3, -0.5, 1), latent(1, 2, -1)

    def reward(x: Tensor) -> Tensor:
        return torch.tanh((x * w).sum())[None]

    higher, before = climb(x, reward, eta=0.2, delta=0.5)
    assert (higher - x).flatten().tolist() == pytest.approx([0.02500197413, 0.05000394825, -0.02500197413], rel=1e-9)
    assert before.item() == pytest.approx(-0.9354090706, rel=1e-9)
    assert reward(higher).item() == pytest.approx(-0.9137835358, rel=1e-9)


def test_guidance_grows_towards_the_image() -> None:
    guidance = RewardGuidance(0.1, 0.2, 0.5)
    etas = [guidance.eta(20 - number, 20) for number in (20, 16, 12, 8, 4)]
    assert etas == pytest.approx([0.1, 0.1095491503, 0.1345491503, 0.1654508497, 0.1904508497], rel=1e-9)


def test_one_shared_state_pulls_the_policy_to_the_winner_and_two_states_away_from_it() -> None:
    # mu(x) = x + theta: D3PO's two states, then TailorPO's one, with the same samples
    theta, sigma = torch.zeros(1, dtype=torch.float64, requires_grad=True), one(0.5)
    x_w, x_l = latent(1.2), latent(0.7)
    apart = step_log_prob(x_w, latent(1) + theta, sigma) - step_log_prob(x_l, latent(0) + theta, sigma)
    reference = (step_log_prob(x_w, latent(1), sigma) - step_log_prob(x_l, latent(0), sigma)).detach()
    (gradient,) = torch.autograd.grad(margin_loss(apart - reference, 0.1).sum(), theta)
    assert gradient.item() == pytest.approx(0.1, rel=1e-9)
    shared = branching_margin(x_w, x_l, latent(1) + theta, latent(1), sigma)
    (gradient,) = torch.autograd.grad(margin_loss(shared, 0.1).sum(), theta)
    assert gradient.item() == pytest.approx(-0.1, rel=1e-9)
