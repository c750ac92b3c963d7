"""The estimate of memory against runs: every tensor that lives is counted while the demo's models train."""

from pathlib import Path

import pyarrow.parquet as parquet
import pytest

from benchmarks.memory import NUM_PAIRS, estimated, measured_gib, spec_of
from demo.assets import ASSETS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "adapter", "batch", "checkpointed", "tolerance"),
    [
        ("sd", "lora", 16, False, 0.1),
        ("sd", "full", 16, False, 0.1),
        ("sd", "lora", 16, True, 0.15),
        ("sdxl", "full", 4, True, 0.15),
        ("sd3", "lora", 16, True, 0.15),
        ("sd3", "lora", 4, False, 0.1),
    ],
)
def test_a_run_allocates_what_was_estimated(
    family: str, adapter: str, batch: int, checkpointed: bool, tolerance: float, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.parquet"
    parquet.write_table(parquet.read_table(ASSETS / "pairs.parquet").slice(0, NUM_PAIRS), pairs)
    spec = spec_of(family, adapter, batch, checkpointed, pairs)
    measured = measured_gib(spec, tmp_path / "run", tmp_path / "cache")
    assert estimated(spec, family).peak_gib == pytest.approx(measured, rel=tolerance, abs=0.0005)
