"""Schedules, targets and their conversions, against the vectors of the reference."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignment_core.diffusion.formulas import (
    add_noise,
    predict_x0,
    regression_error,
    scaled_linear_abar,
    snr,
    training_target,
    velocity,
)

ABAR = scaled_linear_abar()


def test_the_sd_schedule_has_the_published_values() -> None:
    expected = {951: 0.008155004567, 751: 0.0557190293, 551: 0.2127825189, 351: 0.5048185579, 1: 0.9982960278}
    assert {t: ABAR[t].item() for t in expected} == pytest.approx(expected, rel=1e-9)
    assert ABAR[999].item() == pytest.approx(0.004660098513, rel=1e-9)
    assert snr(ABAR[999:]).item() == pytest.approx(0.004681916706, rel=1e-9)


def test_noise_velocity_and_both_routes_back_to_the_image() -> None:
    abar = ABAR[[501]]
    x_0, eps = torch.tensor([[0.3, -1.2]], dtype=torch.float64), torch.tensor([[0.7, 0.4]], dtype=torch.float64)
    x_t, v = add_noise(x_0, eps, abar), velocity(x_0, eps, abar)
    assert x_t[0].tolist() == pytest.approx([0.7533499667, -0.2886962947], rel=1e-9)
    assert v[0].tolist() == pytest.approx([0.1116415142, 1.231525253], rel=1e-9)
    assert torch.allclose(predict_x0("epsilon", x_t, eps, abar), x_0)
    assert torch.allclose(predict_x0("v_prediction", x_t, v, abar), x_0)


@given(st.sampled_from([0, 250, 500, 750, 999]), st.integers(0, 2**31))
def test_errors_in_v_are_errors_in_eps_over_abar(t: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x_0, eps, guess = torch.randn(3, 1, 16, generator=generator, dtype=torch.float64)
    abar = ABAR[[t]]
    x_t = add_noise(x_0, eps, abar)
    x_0_guess = predict_x0("epsilon", x_t, guess, abar)
    v_guess = velocity(x_0_guess, guess, abar)
    ratio = regression_error(v_guess, velocity(x_0, eps, abar)) / regression_error(guess, eps)
    factors = {0: 1.000850723, 250: 1.484136161, 500: 3.618826359, 750: 17.80314591, 999: 214.5877383}
    assert ratio.item() == pytest.approx(factors[t], rel=1e-6)


def test_errors_of_half_precision_predictions_are_float32() -> None:
    prediction, target = torch.ones(2, 4, dtype=torch.float16), torch.zeros(2, 4, dtype=torch.float16)
    assert regression_error(prediction, target).dtype is torch.float32


def test_the_target_follows_the_prediction_type() -> None:
    x_0, eps, abar = torch.zeros(1, 2), torch.ones(1, 2), torch.tensor([0.25])
    assert training_target("epsilon", x_0, eps, abar) is eps
    assert torch.equal(training_target("v_prediction", x_0, eps, abar), 0.5 * eps)
