"""The largest alpha within a budget of drift: on linear outputs, whose drift is a parabola, and on others."""

import math
from collections.abc import Callable

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from alignment_core.reference.drift_control import MAX_MEASUREMENTS, TOLERANCE, largest_alpha

Point = tuple[float, float, float]
coordinates = st.floats(-10, 10).filter(lambda x: x == 0 or abs(x) > 1e-3)
points = st.tuples(coordinates, coordinates, coordinates)


def linear(reference: Point, policy: Point) -> Callable[[float], float]:
    """eps_dist of a model that is linear in its weights: the squared length of what blending makes of the outputs."""
    return lambda alpha: sum(((1 - alpha) * r + alpha * p) ** 2 for r, p in zip(reference, policy, strict=True))


def largest_on_a_grid(drift_of: Callable[[float], float], delta: float, alpha_max: float) -> float:
    alphas = [alpha_max * number / 2000 for number in range(2001)]
    return max(alpha for alpha in alphas if drift_of(alpha) <= delta)


@given(points, points, st.floats(1e-2, 1e3), st.floats(0.05, 1))
def test_the_drift_stays_within_the_budget_and_alpha_is_the_largest(
    reference: Point, policy: Point, share: float, alpha_max: float
) -> None:
    drift_of = linear(reference, policy)
    delta = max(drift_of(0.0), share)
    found = largest_alpha(drift_of, drift_of(0.0), delta, alpha_max)
    assert 0 <= found.alpha <= alpha_max
    assert drift_of(found.alpha) == found.drift <= delta
    largest = largest_on_a_grid(drift_of, delta, alpha_max)
    assert found.drift >= (1 - TOLERANCE) * delta or found.alpha >= (1 - TOLERANCE) * largest - alpha_max / 1000


@given(st.floats(0.8, 5), st.floats(1, 1e4))
def test_it_needs_no_parabola(exponent: float, far: float) -> None:
    found = largest_alpha(lambda alpha: far * alpha**exponent, 0.0, 1.0, 1.0)
    assert found.drift <= 1.0
    assert found.drift >= 0.8 or found.alpha == 1.0


@pytest.mark.parametrize("far", [2.0, 100.0, 1e6])
def test_from_the_initial_model_the_first_update_spends_the_budget(far: float) -> None:
    measured: list[float] = []

    def drift_of(alpha: float) -> float:
        measured.append(alpha)
        return far * alpha**2

    found = largest_alpha(drift_of, 0.0, 1.0, 1.0)
    assert found.drift == pytest.approx(1 - TOLERANCE / 2)  # convexity of the square alone would allow 1/far of it
    assert found.alpha == pytest.approx(far**-0.5, rel=TOLERANCE)
    assert len(measured) == 2


def test_a_policy_within_the_budget_is_taken_whole() -> None:
    found = largest_alpha(linear((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)), 1.0, 1.0, 1.0)
    assert (found.alpha, found.drift) == (1.0, 1.0)


def test_at_the_edge_a_policy_that_turned_is_followed_across_the_budget() -> None:
    drift_of = linear((1.0, 0.0, 0.0), (-2.0, 0.0, 0.0))  # as far as -1 it is inside again
    found = largest_alpha(drift_of, 1.0, 1.0, 1.0)
    assert found.alpha == pytest.approx(2 / 3, rel=TOLERANCE)


@given(points, points, st.floats(0.1, 0.99))
def test_beyond_the_budget_it_comes_back_when_there_is_a_way(reference: Point, policy: Point, over: float) -> None:
    drift_of = linear(reference, policy)
    assume(drift_of(0.0) > 1e-3)
    delta = over * drift_of(0.0)
    least = min(drift_of(number / 1000) for number in range(1001))
    found = largest_alpha(drift_of, drift_of(0.0), delta, 1.0)
    assert found.drift <= drift_of(0.0)
    if least < 0.98 * delta:
        assert found.drift <= delta
    if least < 0.9 * drift_of(0.0):
        assert found.alpha > 0


def test_a_signed_drift_may_fall_below_zero() -> None:
    found = largest_alpha(lambda alpha: -0.5 * alpha + 4 * alpha**2, 0.0, 1.0, 1.0)
    assert 0.98 <= found.drift <= 1.0


@pytest.mark.parametrize("beyond", [math.nan, math.inf])
def test_a_drift_that_is_no_number_is_beyond_every_budget(beyond: float) -> None:
    never = largest_alpha(lambda alpha: beyond, 0.0, 1.0, 1.0)
    assert (never.alpha, never.drift) == (0.0, 0.0)
    near = largest_alpha(lambda alpha: beyond if alpha > 0.3 else alpha, 0.0, 1.0, 1.0)
    assert 0.25 <= near.alpha <= 0.3


def test_measurements_are_bounded() -> None:
    num = 0

    def unsteady(alpha: float) -> float:
        nonlocal num
        num += 1
        return 2.0 + math.sin(1e4 * alpha)

    largest_alpha(unsteady, 2.0, 0.5, 1.0)
    assert num <= MAX_MEASUREMENTS
