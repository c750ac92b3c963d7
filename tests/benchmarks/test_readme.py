"""The page of the benchmarks names every command, and what it shows of drawing is what was measured."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "benchmarks" / "README.md").read_text()
PARTS_OF_OTHERS = {"cell", "scaling_runs"}  # processes that a benchmark starts


def rows_of(name: str) -> list[dict[str, Any]]:
    return json.loads((ROOT / "docs" / f"{name}.json").read_text())["rows"]


def test_every_command_is_named() -> None:
    commands = {
        file.stem for file in (ROOT / "benchmarks").glob("*.py") if '__name__ == "__main__"' in file.read_text()
    }
    assert set(re.findall(r"python -m benchmarks\.(\w+)", PAGE)) == commands - PARTS_OF_OTHERS


@pytest.mark.parametrize("row", [*rows_of("rollout"), *rows_of("evaluation")], ids=lambda row: row["case"])
def test_the_table_of_drawing_has_the_measured_figures(row: dict[str, Any]) -> None:
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {row['case']} |")]
    numbers = [float(found) for found in re.findall(r"\d+\.\d+", line)]
    assert numbers == pytest.approx([row["images_per_second"]["ours"], *row["ratios"].values()], abs=0.006)
    ours = row["parts"]["ours"]
    shares = [100 * ours[part] / sum(ours.values()) for part in ("denoising", "VAE decode")]
    assert [float(found) for found in re.findall(r"(\d+) %", line)][:2] == pytest.approx(shares, abs=0.51)
