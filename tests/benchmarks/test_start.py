"""The parts of a start add up, and what is inside another part counts once."""

import json
import subprocess
import sys
import time
from pathlib import Path

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


@pytest.mark.slow
def test_the_command_measures_a_start_in_every_state(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.start", str(tmp_path / "start")], check=True, capture_output=True)
    found = {row["state"]: row["parts"] for row in json.loads((tmp_path / "start.json").read_text())["rows"]}
    assert list(found) == ["cold", "warm", "waits"]
    assert found["waits"]["imports"]["cpu_seconds"] < 0.5 < found["warm"]["imports"]["cpu_seconds"]
