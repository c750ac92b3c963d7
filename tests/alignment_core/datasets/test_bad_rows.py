"""`on_bad_row: drop`: what has an error is left out, counted and named, and training reads exactly the rest."""

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignment_core import AlignmentError, align
from alignment_core.datasets.preflight import check_rows
from alignment_core.events import DatasetChecked, StepCompleted
from tests.alignment_core.tiny import save_pairs, tiny_spec

BAD = {3: ("chosen", b"no image"), 4: ("rejected", b""), 7: ("prompt", None), 9: ("label", 1.5)}


def broken(path: Path, num_pairs: int = 12) -> Path:
    """Pairs of which four rows have an error each, of three kinds that are seen at three times."""
    values = pq.read_table(save_pairs(path, num_pairs)).to_pydict()
    for row, (column, value) in BAD.items():
        values[column][row - 1] = value
    pq.write_table(pa.table(values), path)
    return path


def without_bad_rows(path: Path) -> Path:
    values = pq.read_table(broken(path)).to_pydict()
    kept = [index for index in range(12) if index + 1 not in BAD]
    pq.write_table(pa.table({name: [column[index] for index in kept] for name, column in values.items()}), path)
    return path


def dataset(path: Path, **changes: object) -> dict[str, object]:
    return {"type": "diffusion_dpo", "dataset": {"type": "local", "path": str(path), **changes}}


def test_what_is_dropped_is_counted_and_named(tmp_path: Path) -> None:
    checked = check_rows(broken(tmp_path / "pairs.parquet"), on_bad_row="drop")
    report = checked.report
    assert report.is_usable
    assert checked.dropped == set(BAD)
    assert (report.num_rows, report.num_usable_rows, report.num_dropped_rows) == (12, 8, 4)
    named = {row: problem.message for problem in report.problems for row in problem.rows}
    assert all("left out: " in named[row] for row in BAD)


def test_one_bad_row_fails_the_dataset_unless_told_otherwise(tmp_path: Path) -> None:
    checked = check_rows(broken(tmp_path / "pairs.parquet"))
    assert not checked.report.is_usable
    assert (checked.report.num_dropped_rows, checked.dropped) == (0, frozenset())


def test_nothing_but_bad_rows_is_no_dataset(tmp_path: Path) -> None:
    values = pq.read_table(save_pairs(tmp_path / "a.parquet", 3)).to_pydict()
    pq.write_table(pa.table({**values, "chosen": [b"no image"] * 3}), tmp_path / "a.parquet")
    report = check_rows(tmp_path / "a.parquet", on_bad_row="drop").report
    assert not report.is_usable
    assert [problem.code for problem in report.problems if problem.severity == "error"] == ["no_usable_rows"]


@pytest.mark.parametrize("method", ["diffusion_dpo", "diffusion_kto"])
def test_training_is_that_on_the_remaining_rows(tiny_model: Path, tmp_path: Path, method: str) -> None:
    losses = []
    for name, path, changes in (
        ("dropped", broken(tmp_path / "broken.parquet"), {"on_bad_row": "drop"}),
        ("removed", without_bad_rows(tmp_path / "whole.parquet"), {}),
    ):
        wanted = {**dataset(path, **changes), "type": method}
        training = {"steps": 2, "batch_size": 8, "learning_rate": 1e-3, "validation_fraction": 0.2}
        spec = tiny_spec(tiny_model, path, method=wanted, evaluation={}, training=training)
        events = align(spec, tmp_path / name, cache_dir=tmp_path / f"cache-{name}")
        seen = []
        for event in events:
            if isinstance(event, DatasetChecked):
                seen.append((event.num_training_examples, event.num_validation_examples))
            if isinstance(event, StepCompleted):
                seen.append(event.metrics["loss"])
                if event.step == 2:
                    break
        losses.append(seen)
    assert len(losses[0]) == 3
    assert losses[0] == losses[1]


def test_a_run_on_a_bad_row_says_which(tiny_model: Path, tmp_path: Path) -> None:
    path = broken(tmp_path / "broken.parquet")
    with pytest.raises(AlignmentError, match=r"first in row 3"):
        list(align(tiny_spec(tiny_model, path), tmp_path / "run", cache_dir=tmp_path / "cache"))


def test_the_command_takes_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "alignment_core", "check", str(broken(tmp_path / "pairs.parquet"))]
    done = subprocess.run([*command, "--on-bad-row", "drop"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert json.loads(done.stdout)["num_dropped_rows"] == 4
