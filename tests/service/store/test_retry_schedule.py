"""When deliveries are tried again: over a day, spread, and as the receiver asks."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.store.retry_schedule import JITTER, WAITS, next_wait

MIDDLE = 0.5


def test_a_delivery_is_tried_for_more_than_a_day_and_then_given_up() -> None:
    waits = [next_wait(number, MIDDLE) for number in range(1, len(WAITS) + 1)]
    assert waits == list(WAITS)
    assert timedelta(days=1) < sum(WAITS, timedelta(0)) < timedelta(days=2)
    assert next_wait(len(WAITS) + 1, MIDDLE) is None


@given(number=st.integers(1, len(WAITS)), draw=st.floats(0, 1, exclude_max=True))
def test_waits_are_spread_by_a_fifth_either_way(number: int, draw: float) -> None:
    wait = next_wait(number, draw)
    assert wait is not None
    assert abs(wait / WAITS[number - 1] - 1) <= JITTER + 1e-6


@pytest.mark.parametrize(
    ("asked", "waited"),
    [
        (timedelta(seconds=1), WAITS[0]),  # sooner than planned
        (timedelta(minutes=10), timedelta(minutes=11)),
        (timedelta(days=400), timedelta(days=1.1)),
    ],
)
def test_a_receiver_says_when_it_wants_to_be_asked_again(asked: timedelta, waited: timedelta) -> None:
    assert next_wait(1, MIDDLE, asked) == waited
