"""The estimate of memory against runs: every tensor that lives is counted while the demo's models train."""

import json
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from benchmarks.memory import GRID, NUM_PAIRS, draw, estimated, measured_gib, on_a_card, spec_of
from demo.assets import ASSETS


@pytest.fixture(scope="module")
def alone() -> Iterator[Executor]:
    """A process without what other tests have left: whatever lives in it is counted."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        yield executor


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "adapter", "batch", "checkpointed"),
    [
        ("sd", "lora", 16, False),
        ("sd", "full", 16, False),
        ("sd", "lora", 16, True),
        ("sdxl", "full", 4, True),
        ("sd3", "lora", 16, True),
        ("sd3", "full", 4, False),
    ],
)
def test_a_run_allocates_what_was_estimated(
    family: str, adapter: str, batch: int, checkpointed: bool, alone: Executor, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.parquet"
    parquet.write_table(parquet.read_table(ASSETS / "pairs.parquet").slice(0, NUM_PAIRS), pairs)
    spec = spec_of(family, adapter, batch, checkpointed, pairs)
    measured = alone.submit(measured_gib, spec, tmp_path / "run", tmp_path / "cache").result()
    assert estimated(on_a_card(spec), family).peak_gib == pytest.approx(measured.device, rel=0.1)
    assert estimated(spec, family).peak_gib == pytest.approx(measured.device + measured.host, rel=0.1)
    assert measured.host > 0


DOCS = Path(__file__).parents[3] / "docs"
ROWS = json.loads((DOCS / "memory.json").read_text())["results"]


@pytest.mark.parametrize("setting", GRID, ids=str)
def test_the_estimate_is_within_a_tenth_of_every_setting_that_was_measured(
    setting: tuple[str, str, int, bool],
) -> None:
    (row,) = [row for row in ROWS if tuple(list(row.values())[:4]) == setting]
    family, adapter, batch, checkpointed = setting
    spec = spec_of(family, adapter, batch, checkpointed, Path("pairs.parquet").absolute())
    found = estimated(on_a_card(spec), family)
    assert found.peak_gib == pytest.approx(row["measured_gib"], rel=0.1)
    assert found.peak_gib == pytest.approx(row["estimated_gib"], rel=0.01), "what the page shows"
    on_a_cpu = row["measured_gib"] + row["left_on_host_gib"]
    assert estimated(spec, family).peak_gib == pytest.approx(on_a_cpu, rel=0.1)


def test_the_plot_is_that_of_the_figures_beside_it(tmp_path: Path) -> None:
    draw(ROWS, tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_bytes() == (DOCS / "memory.svg").read_bytes()
