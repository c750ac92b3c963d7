"""The parts of a start add up, and what is inside another part counts once."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.redraw import DOCS
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


def test_the_page_has_the_figures_of_the_docs() -> None:
    states = {"cold": "first run", "warm": "on a warm machine", "waits": "in a process that waited"}
    page = (DOCS / "performance.md").read_text().splitlines()
    for row in json.loads((DOCS / "start.json").read_text())["rows"]:
        (line,) = [line for line in page if line.startswith(f"| {states[row['state']]} |")]
        cpu, clock = ({part: of[key] for part, of in row["parts"].items()} for key in ("cpu_seconds", "seconds"))
        before, by_clock = (sum(of.values()) - of["first step"] for of in (cpu, clock))
        rest = cpu["rest"] + cpu["interpreter"]
        expected = [*(cpu[part] for part in ("imports", "weights", "hashes", "data")), rest, before, by_clock]
        found = [float(cell.strip(" *")) for cell in line.split("|")[2:-1]]
        assert found == pytest.approx([*expected, cpu["first step"]], abs=0.051)


@pytest.mark.slow
def test_the_command_measures_a_start_in_every_state(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "benchmarks.start", str(tmp_path / "start")], check=True, capture_output=True)
    found = {row["state"]: row["parts"] for row in json.loads((tmp_path / "start.json").read_text())["rows"]}
    assert list(found) == ["cold", "warm", "waits"]
    assert (tmp_path / "start.svg").is_file()
    assert found["waits"]["imports"]["cpu_seconds"] < 0.5 < found["warm"]["imports"]["cpu_seconds"]
