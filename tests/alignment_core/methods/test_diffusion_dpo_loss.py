"""The loss of Diffusion-DPO and its variants against vectors worked by hand, in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from alignment_core.methods.diffusion_dpo import (
    PairErrors,
    cdpo_loss,
    metrics_vs_init,
    pair_loss,
    pair_metrics,
    preference_logit,
    robust_loss,
    sigmoid_loss,
    soft_label_loss,
)

M_W, M_L, R_W, R_L = [0.1, 0.21, 0.05], [0.101, 0.2095, 0.05], [0.1004, 0.2098, 0.05], [0.1008, 0.21, 0.05]


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: Tensor | float, expected: float | list[float], rel: float = 1e-9) -> bool:
    values = actual.tolist() if isinstance(actual, Tensor) else actual
    return values == pytest.approx(expected, rel=rel, abs=1e-15)


def logit(beta: float = 5000.0) -> Tensor:
    return preference_logit(f64(*M_W), f64(*M_L), f64(*R_W), f64(*R_L), beta)


def test_the_logit_of_three_pairs_is_that_of_the_reference() -> None:
    assert close(logit(), [1.5, -1.75, 0.0], rel=1e-9)


def test_against_the_initial_model_a_margin_is_counted_from_its_errors() -> None:
    initial = PairErrors(f64(*M_W), f64(*M_L), f64(0.1005, 0.21, 0.0502), f64(0.1004, 0.2092, 0.05))
    told = metrics_vs_init(initial, 5000.0)
    assert close(told["margin_vs_init"], [2.75, 0.75, 0.5])
    assert close(told["margin_vs_init"].mean(), 1.333333333)


def test_the_loss_is_the_mean_of_losses_and_not_the_loss_of_the_mean() -> None:
    losses = sigmoid_loss(logit())
    assert close(losses, [0.201413278, 1.91022415, 0.6931471806], rel=1e-9)
    assert close(losses.mean(), 0.9349282030)
    assert close(sigmoid_loss(logit().mean(dim=0, keepdim=True)), [0.7356816517])


@pytest.mark.parametrize(("beta", "expected"), [(5000.0, 0.2014132780), (2000.0, 0.4374879505), (1000.0, 0.5543552445)])
def test_the_loss_at_other_betas(beta: float, expected: float) -> None:
    assert close(sigmoid_loss(logit(beta))[:1], [expected])


def test_the_gradient_in_the_errors_is_opposite_for_winner_and_loser() -> None:
    m_w, m_l = f64(0.1).requires_grad_(), f64(0.101).requires_grad_()
    sigmoid_loss(preference_logit(m_w, m_l, f64(0.1004), f64(0.1008), 5000.0)).sum().backward()
    assert m_w.grad is not None
    assert m_l.grad is not None
    assert close(m_w.grad, [456.0638095])
    assert close(m_l.grad, [-456.0638095])


def test_policy_equal_to_reference_loses_ln_2_and_still_learns() -> None:
    m_w = f64(0.1).requires_grad_()
    loss = sigmoid_loss(preference_logit(m_w, f64(0.2), f64(0.1), f64(0.2), 5000.0))
    loss.sum().backward()
    assert m_w.grad is not None
    assert close(loss, [math.log(2)])
    assert close(m_w.grad, [1250.0])


def test_extreme_logits_neither_overflow_nor_vanish() -> None:
    assert close(sigmoid_loss(f64(-50.0)), [50.0])
    assert close(sigmoid_loss(f64(50.0)), [1.928749848e-22])


def test_a_toy_model_gets_the_gradient_of_the_reference() -> None:
    theta = f64(0.5).requires_grad_()
    m_w, m_l = (theta * 1 - 1) ** 2, (theta * 2 - 1) ** 2
    sigmoid_loss(preference_logit(m_w, m_l, m_w.detach(), m_l.detach(), 5000.0)).sum().backward()
    assert theta.grad is not None
    assert close(theta.grad, [-1250.0])


VARIANTS = {
    "sigmoid": [0.2014132780, 1.701413278, 0.6931471806],
    "hinge": [0.0, 2.5, 1.0],
    "ipo": [1.0, 4.0, 0.25],
    "cdpo": [0.3514132780, 1.551413278, 0.6931471806],
    "robust": [0.01391327798, 1.888913278, 0.6931471806],
    "dmpo": [0.3732659178, 3.291851477, 1.614463080],
}


@pytest.mark.parametrize("kind", VARIANTS)
def test_each_variant_has_the_value_of_the_reference(kind: str) -> None:
    loss = pair_loss(kind, label_smoothing=0.1, dmpo_alpha=0.01)  # pyright: ignore[reportArgumentType]
    assert close(loss(f64(1.5, -1.5, 0.0)), VARIANTS[kind], rel=2e-9)


def test_cdpo_is_least_where_its_label_noise_says() -> None:
    h = f64(2.197224577).requires_grad_()
    loss = cdpo_loss(h, 0.1)
    loss.sum().backward()
    assert h.grad is not None
    assert close(loss, [0.3250829734])
    assert h.grad.abs().item() < 1e-9


def test_robust_loss_goes_below_zero() -> None:
    assert close(robust_loss(f64(5.0), 0.1), [-0.6182846515])


def test_dmpo_is_zero_at_its_optimum() -> None:
    assert pair_loss("dmpo", dmpo_alpha=0.01)(f64(math.log(99))).abs().item() < 1e-12


def test_a_soft_label_is_cdpo_with_the_rest_as_noise() -> None:
    assert close(soft_label_loss(sigmoid_loss, f64(1.5), f64(0.8)), [0.5014132780])
    assert close(soft_label_loss(sigmoid_loss, f64(1.5), f64(0.8)), cdpo_loss(f64(1.5), 0.2).tolist())


def test_metrics_of_three_pairs() -> None:
    metrics = pair_metrics(PairErrors(f64(*M_W), f64(*M_L), f64(*R_W), f64(*R_L)), logit())
    means = {name: value.double().mean().item() for name, value in metrics.items()}
    assert means["implicit_accuracy"] == pytest.approx(0.5)  # the strict form would say 1/3
    assert means["margin"] == pytest.approx(-0.0833333333, rel=1e-8)
    assert means["chosen_error"] == pytest.approx(0.12)
    assert means["rejected_error"] == pytest.approx(0.1201666667)
    assert means["chosen_gain"] == pytest.approx(6.666666667e-5)
    assert means["rejected_gain"] == pytest.approx(1e-4)
    assert means["winner_degraded"] == pytest.approx(1 / 3)


errors = st.floats(1e-3, 1.0)
betas = st.floats(1.0, 20_000.0)
logits = st.floats(-30, 30)


@given(errors, errors, errors, errors, betas)
def test_swapping_the_pair_negates_the_logit(m_w: float, m_l: float, r_w: float, r_l: float, beta: float) -> None:
    u = preference_logit(f64(m_w), f64(m_l), f64(r_w), f64(r_l), beta)
    swapped = preference_logit(f64(m_l), f64(m_w), f64(r_l), f64(r_w), beta)
    assert torch.allclose(u, -swapped)


@given(errors, errors, errors, errors, betas, st.floats(-1, 1), st.floats(0.1, 10))
def test_shifts_cancel_and_scales_are_betas(
    m_w: float, m_l: float, r_w: float, r_l: float, beta: float, shift: float, scale: float
) -> None:
    u = preference_logit(f64(m_w), f64(m_l), f64(r_w), f64(r_l), beta)
    assert torch.allclose(u, preference_logit(f64(m_w + shift), f64(m_l + shift), f64(r_w), f64(r_l), beta), atol=1e-8)
    scaled = preference_logit(f64(m_w * scale), f64(m_l * scale), f64(r_w * scale), f64(r_l * scale), beta)
    assert torch.allclose(scaled, preference_logit(f64(m_w), f64(m_l), f64(r_w), f64(r_l), beta * scale), atol=1e-8)


@given(logits)
def test_a_swapped_pair_loses_the_logit_more(h: float) -> None:
    assert torch.allclose(sigmoid_loss(f64(-h)) - sigmoid_loss(f64(h)), f64(h), atol=1e-9)


@given(st.sampled_from(["sigmoid", "hinge", "robust"]), logits, st.floats(0, 5))
def test_a_better_winner_never_costs_more(kind: str, h: float, better: float) -> None:
    loss = pair_loss(kind, label_smoothing=0.1)  # pyright: ignore[reportArgumentType]
    assert loss(f64(h + better)).item() <= loss(f64(h)).item() + 1e-12


@given(st.sampled_from(list(VARIANTS)), logits)
def test_the_gradient_of_each_variant_is_that_of_finite_differences(kind: str, h: float) -> None:
    loss = pair_loss(kind, label_smoothing=0.1, dmpo_alpha=0.01)  # pyright: ignore[reportArgumentType]
    if kind == "hinge" and abs(h - 1) < 1e-4:
        return  # the corner has no derivative
    point = f64(h).requires_grad_()
    loss(point).sum().backward()
    assert point.grad is not None
    step = 1e-6
    numeric = (loss(f64(h + step)) - loss(f64(h - step))) / (2 * step)
    assert torch.allclose(point.grad, numeric, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 0.02), (torch.bfloat16, 0.1)])
def test_rounded_predictions_barely_move_the_logit_when_errors_are_float32(dtype: torch.dtype, bound: float) -> None:
    from alignment_core.diffusion.formulas import regression_error

    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        targets = torch.randn(2, 16384, generator=generator, dtype=torch.float64)
        predictions = [
            targets + 0.316 * torch.randn(2, 16384, generator=generator, dtype=torch.float64) for _ in range(2)
        ]
        exact = [regression_error(prediction, targets) for prediction in predictions]
        rounded = [regression_error(prediction.to(dtype), targets.float()).double() for prediction in predictions]
        u = [preference_logit(m[:1], m[1:], r[:1], r[1:], 5000.0) for m, r in (exact, rounded)]
        assert abs((u[0] - u[1]).item()) < bound
