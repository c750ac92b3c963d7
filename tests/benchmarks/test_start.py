"""The parts of a start add up, and what is inside another part counts once."""

import time

import pytest

from benchmarks.start import PARTS, Clock


def test_a_part_inside_another_is_counted_for_itself_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "time", lambda: now)
    monkeypatch.setattr(time, "process_time", lambda: (now - 100.0) / 2)
    clock = Clock(began=98.0)
    clock.turn_to("data")
    now += 3.0
    with clock.within("hashes"):
        now += 5.0
    now += 1.0
    clock.turn_to("first step")
    assert clock.parts == {
        **{name: [0.0, 0.0] for name in PARTS},
        "interpreter": [2.0, 0.0],
        "data": [4.0, 2.0],
        "hashes": [5.0, 2.5],
    }
