"""Running cells: what is there is not run again, and what fails says so."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.cells import Cell, all_cells, read_result, run_missing
from benchmarks.protocol import PLAIN_DPO, TEST_PROMPTS, TEST_SEEDS, TUNING_PROMPTS, TUNING_SEEDS


def test_every_run_has_a_spec_that_is_accepted_and_a_name_of_its_own() -> None:
    cells = all_cells()
    assert len({cell.spec().sha256() for cell in cells}) == len({cell.name for cell in cells}) == len(cells)


def test_beta_is_tuned_on_other_seeds_and_other_prompts() -> None:
    assert not set(TUNING_PROMPTS) & set(TEST_PROMPTS)
    assert not set(TUNING_SEEDS) & set(TEST_SEEDS)
    tuning = Cell(PLAIN_DPO, TUNING_SEEDS[0], 1000.0).spec()
    assert set(tuning.evaluation.prompts or ()) == set(TUNING_PROMPTS)


def test_a_finished_run_is_not_run_again_and_one_of_another_spec_is(tmp_path: Path) -> None:
    cell = Cell(PLAIN_DPO, 0, 1000.0)
    path = tmp_path / f"{cell.name}.json"
    path.write_text(json.dumps({"spec_sha256": cell.spec().sha256(), "gain": 0.2}))
    assert read_result(cell, tmp_path) is not None
    assert list(run_missing([cell], tmp_path, jobs=1)) == ["1 of 1 runs are done already"]
    path.write_text(json.dumps({"spec_sha256": "another", "gain": 0.2}))
    assert read_result(cell, tmp_path) is None


@pytest.mark.slow
def test_a_failed_run_stops_the_benchmark_with_what_it_said(tmp_path: Path) -> None:
    impossible = replace(
        PLAIN_DPO, method={"type": "diffusion_dpo", "dataset": {"type": "local", "path": "/nowhere.parquet"}}
    )
    with pytest.raises(RuntimeError, match=r"(?s)dpo-beta1000-seed0 failed.*nowhere\.parquet"):
        list(run_missing([Cell(impossible, 0, 1000.0)], tmp_path, jobs=1))


@pytest.mark.slow
def test_a_run_is_measured(tmp_path: Path) -> None:
    cell = Cell(replace(PLAIN_DPO, steps=2), 0, 1000.0)
    assert "gain" in list(run_missing([cell], tmp_path, jobs=1))[-1]
    figures = read_result(cell, tmp_path)
    assert figures is not None
    assert figures["unet_forwards"] == 2 * 16 * 2 * 2  # steps, pairs, images of a pair, policy and reference
    assert figures["cpu_seconds"] > 0
