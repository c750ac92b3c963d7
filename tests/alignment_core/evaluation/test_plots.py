"""Plots as geometry: everything inside its box, in order, at its place."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignment_core.evaluation.plots import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MOST_BARS,
    RIGHT,
    TOP,
    WIDTH,
    forest,
    gain_bars,
    line_charts,
    round_ticks,
    running_mean,
    tick_labels,
)
from alignment_core.reports import Curve, Interval, RewardComparison

NUMBERS = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda value: round(value, 9))


@given(NUMBERS, st.floats(1e-6, 1e6), st.integers(3, 8))
def test_ticks_are_round_few_evenly_spaced_and_told_apart(low: float, span: float, most: int) -> None:
    ticks = round_ticks(low, low + span, most)
    assert 1 <= len(ticks) <= most
    slack = 1e-6 * max(span, abs(low) * 1e-6)
    assert all(low - slack <= tick <= low + span + slack for tick in ticks)
    gaps = [b - a for a, b in itertools.pairwise(ticks)]
    assert gaps == pytest.approx([gaps[0]] * len(gaps) if gaps else [], rel=1e-3)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, ["0.0", "0.5", "1.0"]),
        (0, 100, ["0", "50", "100"]),
        (-0.07, 0.01, ["\N{MINUS SIGN}0.05", "0.00"]),
        (0, 1e-4, ["0", "5e-5", "0.0001"]),
    ],
    ids=["share", "steps", "negative", "tiny"],
)
def test_labels_have_the_decimals_that_they_need(low: float, high: float, expected: list[str]) -> None:
    assert tick_labels(round_ticks(low, high, 4)) == expected


@given(st.lists(NUMBERS, min_size=1, max_size=60))
def test_every_point_of_a_curve_lies_in_its_box_in_order(values: list[float]) -> None:
    steps = list(range(3, 3 + len(values)))
    (chart,) = line_charts([Curve(split="training", metric="loss", steps=steps, values=values)])
    places = [tuple(map(float, point.split(","))) for point in chart.lines[0].points.split()]
    assert len(places) == len(values)
    assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in places)
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    highest = max(range(len(values)), key=values.__getitem__)
    assert places[highest][1] == min(y for _, y in places), "up is more"
    assert (chart.first_step, chart.last_step) == (steps[0], steps[-1])


def test_the_splits_of_a_metric_share_a_chart_and_an_empty_curve_has_none() -> None:
    curves = [
        Curve(split="training", metric="loss", steps=[1, 2], values=[1.0, 0.5]),
        Curve(split="training", metric="margin", steps=[1, 2], values=[0.0, 1.0]),
        Curve(split="validation", metric="loss", steps=[2], values=[2.0]),
        Curve(split="training", metric="nothing", steps=[], values=[]),
    ]
    charts = line_charts(curves)
    assert [(chart.metric, [line.split for line in chart.lines]) for chart in charts] == [
        ("loss", ["training", "validation"]),
        ("margin", ["training"]),
    ]
    training, validation = (line.end for line in charts[0].lines)
    assert training[0] == validation[0], "the same step"
    assert validation[1] < training[1], "2.0 is above 0.5"


def test_only_long_curves_are_smoothed_and_smoothing_keeps_a_constant() -> None:
    short, long = (
        line_charts([Curve(split="training", metric="m", steps=list(range(num)), values=[0.5] * num)])[0].lines[0]
        for num in (30, 100)
    )
    assert short.trend is None
    assert long.trend is not None
    assert long.last == 0.5
    assert running_mean([0.0, 3.0, 0.0, 3.0, 0.0], 2) == [1.5, 1.0, 2.0, 1.0, 1.5]


def line(gain: float, low: float, high: float, effect: float | None) -> RewardComparison:
    interval = Interval(low=low, high=high, confidence=0.95)
    return RewardComparison(
        name="a",
        base_mean=0,
        policy_mean=gain,
        gain=gain,
        gain_interval=interval,
        effect_size=effect,
        win_rate=0.5,
        bootstrap_interval=interval,
        num_ties=0,
    )


def test_a_forest_puts_different_units_on_one_scale() -> None:
    # 0.2 of a reward whose images spread by 0.1 is as much as 20 of one whose images spread by 10
    found = forest([line(0.2, 0.1, 0.3, 2.0), line(20, 10, 30, 2.0), line(-0.1, -0.3, 0.1, -1.0), line(1, 1, 1, None)])
    assert found is not None
    first, second, third = found.rows
    assert (first.low, first.point, first.high) == pytest.approx((second.low, second.point, second.high))
    assert found.zero < first.low < first.point < first.high < 100
    assert 0 < third.low < third.point < found.zero < third.high
    assert [row.sign for row in found.rows] == [1, 1, 0]
    assert forest([line(1, 1, 1, None)]) is None


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=400))
def test_bars_stand_on_zero_sorted_and_count_every_prompt(gains: list[float]) -> None:
    found = gain_bars("a", [(f"prompt {index}", gain) for index, gain in enumerate(gains)])
    assert len(found.bars) == min(len(gains), MOST_BARS)
    assert found.num_gaining + found.num_losing + sum(gain == 0 for gain in gains) == found.num_prompts == len(gains)
    for bar in found.bars:
        assert LEFT <= bar.x <= bar.x + bar.width <= WIDTH - RIGHT + 0.02
        assert TOP - 0.6 <= bar.y <= bar.y + bar.height <= HEIGHT - BOTTOM + 0.6
        assert bar.y == pytest.approx(found.zero) if not bar.is_gain else bar.y <= found.zero
    assert found.bars[0].caption.startswith(f"{min(gains):+.3g}:")
    assert found.bars[-1].caption.startswith(f"{max(gains):+.3g}:") or len(gains) == 1
