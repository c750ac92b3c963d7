"""MaPO's loss against vectors worked by hand, in float64, and where its formula breaks when it is written naively."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from alignment_core.methods.mapo import likelihood_margin, likelihood_proxy, mapo_loss

BETA, KAPPA, T = 0.1, 0.5, 1000.0


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def loss_of(m_w: Tensor, m_l: Tensor) -> Tensor:
    return mapo_loss(m_w, T * likelihood_margin(m_w, m_l, KAPPA), BETA)


def test_the_proxy_falls_from_one() -> None:
    assert likelihood_proxy(f64(0.0, 0.05, 0.06)).tolist() == pytest.approx([1.0, 0.9752083247, 0.9702999820], rel=1e-9)


@pytest.mark.parametrize(
    ("m_w", "m_l", "expected"),
    [(0.10, 0.12, 0.1007357584), (0.12, 0.10, 0.6115700235), (0.10, 0.10, 0.1693147181)],
)
def test_the_loss_is_the_one_worked_by_hand(m_w: float, m_l: float, expected: float) -> None:
    assert loss_of(f64(m_w), f64(m_l)).item() == pytest.approx(expected, rel=1e-9)


def test_the_margin_and_its_gradients_are_those_worked_by_hand() -> None:
    m_w, m_l = f64(0.10).requires_grad_(), f64(0.12).requires_grad_()
    assert T * likelihood_margin(m_w, m_l, KAPPA).item() == pytest.approx(4.908342652, rel=1e-9)
    loss_of(m_w, m_l).sum().backward()
    assert m_w.grad is not None
    assert m_l.grad is not None
    assert m_w.grad.item() == pytest.approx(1.180210419, rel=1e-9)
    assert m_l.grad.item() == pytest.approx(-0.1795997223, rel=1e-9)


@pytest.mark.parametrize("z", [0.0, 1e-12, 1e-8, 1e-7, 9.9e-5, 1.01e-4, 1e-3, 1.0, 50.0, 200.0])
def test_single_precision_keeps_the_proxy_and_its_slope(z: float) -> None:
    """Written as z / (e^z - 1), float32 gives 0.839 at 1e-7, divides by zero at 1e-8 and overflows beyond 88."""
    point = torch.tensor([z], dtype=torch.float32, requires_grad=True)
    value = likelihood_proxy(point)
    value.sum().backward()
    exact = z / math.expm1(z) if z else 1.0
    assert value.item() == pytest.approx(exact, rel=1e-5, abs=1e-30)
    assert point.grad is not None
    slope = (1 / math.expm1(z) - z * math.exp(z) / math.expm1(z) ** 2) if z > 1e-3 else -0.5 + z / 6
    assert point.grad.item() == pytest.approx(slope, rel=1e-3, abs=1e-30)


errors = st.floats(1e-3, 2.0)


@given(errors, errors, st.floats(0, 1))
def test_a_better_winner_or_a_worse_loser_never_costs_more(m_w: float, m_l: float, change: float) -> None:
    loss = loss_of(f64(m_w), f64(m_l)).item()
    assert loss_of(f64(m_w * change), f64(m_l)).item() <= loss + 1e-12
    assert loss_of(f64(m_w), f64(m_l + change)).item() <= loss + 1e-12
