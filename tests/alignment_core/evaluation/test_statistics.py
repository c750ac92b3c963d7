import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from alignment_core.evaluation.statistics import (
    Scores,
    bca_interval,
    bootstrap_interval,
    gains,
    paired_p_value,
    prompts_won,
    two_sided_p,
    wins,
)
from alignment_core.reports import Interval, holm, wilson_interval

SHAPES = hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
SCORES = SHAPES.flatmap(
    lambda shape: st.tuples(*[hnp.arrays(np.float64, shape, elements=st.floats(-100, 100, width=16))] * 2)
)


def interval_of(values: Scores, resamples: int = 500, seed: int = 0) -> Interval:
    return bootstrap_interval(values, resamples, 0.95, np.random.default_rng(seed))


def test_wilson_interval_of_70_wins_in_100() -> None:
    interval = wilson_interval(70, 100, 0.95)
    assert interval.low == pytest.approx(0.6041514537, abs=1e-10)
    assert interval.high == pytest.approx(0.7810511471, abs=1e-10)
    assert wilson_interval(0, 4, 0.95).low == 0.0


@given(total=st.integers(1, 2000), data=st.data(), confidence=st.floats(0.51, 0.999))
def test_wilson_holds_the_share_and_mirrors_with_it(total: int, data: st.DataObject, confidence: float) -> None:
    won = data.draw(st.integers(0, 2 * total)) / 2
    interval, mirrored = wilson_interval(won, total, confidence), wilson_interval(total - won, total, confidence)
    assert 0 <= interval.low <= won / total + 1e-12
    assert won / total - 1e-12 <= interval.high <= 1
    assert (interval.low, interval.high) == pytest.approx((1 - mirrored.high, 1 - mirrored.low), abs=1e-9)


def test_wilson_is_wider_with_more_confidence_and_narrower_with_more_trials() -> None:
    def width(total: int, confidence: float) -> float:
        interval = wilson_interval(0.7 * total, total, confidence)
        return interval.high - interval.low

    assert width(100, 0.99) > width(100, 0.95) > width(100, 0.9)
    assert width(100, 0.95) > width(1000, 0.95)


@given(SCORES)
def test_swapping_base_and_policy_negates_gains_and_mirrors_wins(scores: tuple[Scores, Scores]) -> None:
    base, policy = scores
    np.testing.assert_array_equal(gains(policy, base), -gains(base, policy))
    np.testing.assert_array_equal(wins(policy, base), 1 - wins(base, policy))


@given(SCORES)
def test_swapping_mirrors_the_intervals(scores: tuple[Scores, Scores]) -> None:
    base, policy = scores
    forth, back = interval_of(gains(base, policy)), interval_of(gains(policy, base))
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=1e-9)
    forth, back = interval_of(wins(base, policy)), interval_of(wins(policy, base))
    assert (forth.low, forth.high) == pytest.approx((1 - back.high, 1 - back.low), abs=1e-9)
    assert prompts_won(base, policy) == len(base) - prompts_won(policy, base)


@given(SCORES, st.floats(-10, 10), st.floats(0.01, 10))
def test_the_interval_moves_with_a_shift_and_stretches_with_a_scale(
    scores: tuple[Scores, Scores], shift: float, scale: float
) -> None:
    values = gains(*scores)
    plain, moved = interval_of(values), interval_of(scale * values + shift)
    assert moved.low == pytest.approx(scale * plain.low + shift, abs=1e-6)
    assert moved.high == pytest.approx(scale * plain.high + shift, abs=1e-6)


@given(SCORES)
def test_the_interval_lies_within_the_prompts_means(scores: tuple[Scores, Scores]) -> None:
    means = scores[0].mean(axis=1)
    interval = interval_of(scores[0])
    assert means.min() - 1e-9 <= interval.low <= interval.high <= means.max() + 1e-9


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=(30, 2))
    assert interval_of(values, seed=4) == interval_of(values, seed=4)
    assert interval_of(values, seed=4) != interval_of(values, seed=5)


def test_copies_of_a_seed_add_no_certainty() -> None:
    values = np.random.default_rng(0).normal(size=(40, 1))
    once, copied = interval_of(values), interval_of(np.repeat(values, 8, axis=1))
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))


def test_thousands_of_prompts_agree_with_the_normal_approximation() -> None:
    # 5,000 prompts x 2,000 resamples is far more than is drawn at once.
    values = np.random.default_rng(0).normal(1.0, 2.0, size=(5000, 1))
    interval = interval_of(values, resamples=2000)
    half_width = 1.96 * values.std() / np.sqrt(5000)
    assert interval.low == pytest.approx(values.mean() - half_width, abs=0.1 * half_width)
    assert interval.high == pytest.approx(values.mean() + half_width, abs=0.1 * half_width)


def coverage(clustered: bool, num_runs: int = 500) -> float:
    """Share of simulated studies (60 prompts x 4 seeds that resemble each other) whose interval holds the truth."""
    generator = np.random.default_rng(7)
    held = 0
    for _ in range(num_runs):
        values = 0.3 + generator.normal(size=(60, 1)) + 0.5 * generator.normal(size=(60, 4))
        values = values if clustered else values.reshape(-1, 1)
        interval = bootstrap_interval(values, 400, 0.95, generator)
        held += interval.low <= 0.3 <= interval.high
    return held / num_runs


def test_a_95_percent_interval_holds_the_truth_in_95_percent_of_studies() -> None:
    assert 0.92 <= coverage(clustered=True) <= 0.98


def test_taking_seeds_for_prompts_would_be_far_too_sure() -> None:
    assert coverage(clustered=False) < 0.8


def test_the_bootstrap_of_wins_is_close_to_wilsons_and_seeds_that_agree_add_nothing() -> None:
    won = np.zeros((100, 1))
    won[:70] = 1
    interval = bootstrap_interval(np.repeat(won, 3, axis=1), 4000, 0.95, np.random.default_rng(0))
    assert (interval.low, interval.high) == pytest.approx((0.604, 0.781), abs=0.02)


def test_a_prompt_is_won_by_the_mean_over_its_seeds() -> None:
    base = np.array([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    policy = np.array([[1.0, -0.5], [0.5, -1.0], [1.0, -1.0], [1.0, 1.0]])
    assert prompts_won(base, policy) == 1 + 0 + 0.5 + 0.5


@pytest.mark.parametrize(
    ("t", "degrees", "p"),
    [
        (0.0, 5, 1.0),
        (12.706204736432095, 1, 0.05),  # tables of Student's t
        (2.2281388519649385, 10, 0.05),
        (2.0930240544082634, 19, 0.05),
        (3.169272667175838, 10, 0.01),
        (1.959963984540054, 10**7, 0.05),  # the normal distribution
    ],
)
def test_students_distribution_is_that_of_the_tables(t: float, degrees: int, p: float) -> None:
    assert two_sided_p(t, degrees) == pytest.approx(p, rel=1e-6)
    assert two_sided_p(-t, degrees) == two_sided_p(t, degrees)


@given(st.floats(0, 60))
def test_one_and_two_degrees_of_freedom_have_closed_forms(t: float) -> None:
    # one: arctan; two: 1 - t / sqrt(t^2 + 2), written so that nothing cancels
    assert two_sided_p(t, 1) == pytest.approx(2 / np.pi * np.arctan2(1, t), rel=1e-9, abs=1e-12)
    root = np.sqrt(t * t + 2)
    assert two_sided_p(t, 2) == pytest.approx(2 / (root * (root + t)), rel=1e-9, abs=1e-12)


def test_the_p_value_of_the_mean_gain_of_prompts() -> None:
    # mean 2, standard deviation sqrt(2.5), t = 2 / sqrt(2.5 / 5) = 2.8284 with 4 degrees of freedom
    values = np.array([[0.0], [1.0], [2.0], [3.0], [4.0]])
    assert paired_p_value(values) == pytest.approx(0.04742065558431, rel=1e-9)
    assert paired_p_value(np.repeat(values, 8, axis=1)) == paired_p_value(values), "copies of a seed add nothing"
    assert paired_p_value(-values) == paired_p_value(values)


def test_no_spread_and_no_second_prompt_have_no_p_value() -> None:
    assert paired_p_value(np.ones((30, 2))) is None
    assert paired_p_value(np.array([[1.0, 2.0]])) is None


def test_without_a_gain_p_values_are_uniform() -> None:
    generator = np.random.default_rng(3)
    found = np.array([paired_p_value(generator.normal(size=(12, 2))) for _ in range(2000)])
    assert np.mean(found < 0.05) == pytest.approx(0.05, abs=0.015)
    assert np.mean(found < 0.5) == pytest.approx(0.5, abs=0.035)


def test_ties_count_as_half_a_win() -> None:
    base, policy = np.array([[0.0, 1.0, 1.0, 2.0]]), np.array([[1.0, 1.0, 0.0, 2.0]])
    np.testing.assert_array_equal(wins(base, policy), [[1.0, 0.5, 0.0, 0.5]])


def bca_of(values: Scores, resamples: int = 500, seed: int = 0) -> Interval:
    return bca_interval(values, resamples, 0.95, np.random.default_rng(seed))


def test_without_skew_the_corrected_interval_is_that_of_the_percentiles() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, size=(400, 1))
    found, plain = bca_of(values, 20_000), interval_of(values, 20_000)
    assert (found.low, found.high) == pytest.approx((plain.low, plain.high), abs=0.01)


def test_skewed_gains_move_the_corrected_interval_to_the_long_side() -> None:
    values = np.random.default_rng(1).exponential(1.0, size=(40, 1))
    found, plain = bca_of(values, 4000), interval_of(values, 4000)
    assert found.low > plain.low
    assert found.high > plain.high


def test_what_never_varies_has_a_point_as_its_interval() -> None:
    for values in (np.ones((5, 2)), np.ones((1, 2))):
        assert bca_of(values) == Interval(low=1.0, high=1.0, confidence=0.95)


def test_the_same_seed_gives_the_same_corrected_interval() -> None:
    values = np.random.default_rng(2).normal(size=(30, 2))
    assert bca_of(values, seed=4) == bca_of(values, seed=4)
    assert bca_of(values, seed=4) != bca_of(values, seed=5)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.01, None, 0.02]) == pytest.approx([0.02, None, 0.02])
    assert holm([]) == []
