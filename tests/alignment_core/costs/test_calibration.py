"""The bounds of an estimate hold four in five jobs. Ratios are drawn here, by seed: 50 jobs a history, each foretold from those before it."""

import random
from collections.abc import Callable
from itertools import pairwise

import pytest

from alignment_core.costs.calibration import FEWEST, MOST, bounds_of

JOBS, HISTORIES = 50, 400
RATIOS: dict[str, Callable[[random.Random], float]] = {
    "as wide as a tenth": lambda draw: draw.lognormvariate(0.1, 0.1),
    "a third too short": lambda draw: 1.5 * draw.lognormvariate(0.0, 0.4),
    "some take much longer": lambda draw: draw.uniform(0.9, 1.1) * (4 if draw.random() < 0.15 else 1),
    "of two kinds": lambda draw: draw.choice((0.6, 1.4)) * draw.uniform(0.95, 1.05),
}


@pytest.mark.parametrize("ratio", RATIOS.values(), ids=RATIOS.keys())
def test_bounds_hold_three_quarters_to_seventeen_twentieths_of_fifty_jobs(
    ratio: Callable[[random.Random], float],
) -> None:
    draw, held = random.Random(7), []
    for _ in range(HISTORIES):
        taken = [ratio(draw) for _ in range(FEWEST + JOBS)]
        for index in range(FEWEST, len(taken)):
            found = bounds_of(taken[max(0, index - MOST) : index])
            assert found is not None
            held.append(found[0] <= taken[index] <= found[1])
    assert 0.75 <= sum(held) / len(held) <= 0.85


def test_of_nine_the_bounds_are_the_outermost_and_of_fewer_there_are_none() -> None:
    assert bounds_of([1.0] * (FEWEST - 1)) is None
    assert bounds_of([1.3, 0.9, 1.1, 1.0, 1.2, 0.8, 1.4, 1.5, 1.6]) == pytest.approx((0.8, 1.6))


def test_bounds_follow_their_jobs() -> None:
    widths = [bounds_of([1.0, 1 + spread, 1 - spread] * 10) for spread in (0.05, 0.2, 0.5)]
    assert all(a is not None and b is not None and b[0] < a[0] < a[1] < b[1] for a, b in pairwise(widths))
