"""The benchmarks of data: synthetic pairs are what they say, and ratios are those of rounds."""

import json
import re
from pathlib import Path

import torch

from benchmarks.scaling import grown_with_rows
from benchmarks.scaling_runs import loaded_run, steps_of
from benchmarks.shards import WAYS, _parser, measured
from benchmarks.speed import paired_ratio
from benchmarks.synthetic_pairs import synthetic_pairs

DOCS = Path(__file__).parents[2] / "docs"


def test_load_that_hits_both_of_a_round_leaves_their_ratio() -> None:
    assert paired_ratio([2.0, 20.0, 2.0], [1.0, 10.0, 1.0]) == 2.0


def test_every_synthetic_pair_has_latents_of_its_own(tmp_path: Path) -> None:
    pairs = synthetic_pairs(700, (2, 3, 3), {"prompt_embeds": torch.zeros(1, 4, 5)}, tmp_path)
    assert len(pairs) == 700
    read = pairs.batch(range(700))
    assert len(torch.cat([read.chosen_mean, read.rejected_mean]).unique(dim=0)) == 1400
    assert read.conditioning["prompt_embeds"].shape == (700, 4, 5)


def test_a_step_takes_as_long_on_a_million_rows_as_on_a_thousand() -> None:
    rows = json.loads((DOCS / "scaling.json").read_text())["rows"]
    assert set(rows["ratios"]) == {"1000", "10000", "100000", "1000000"}
    assert grown_with_rows(rows) == {}


def test_a_step_that_grows_with_the_rows_is_told() -> None:
    assert grown_with_rows({"ratios": {"1000": 1.0, "10000": 1.049, "100000": 1.051}}) == {"100000": 1.051}


def test_a_step_that_is_timed_is_one_micro_batch(tmp_path: Path) -> None:
    run = loaded_run(tmp_path)
    assert (run.spec.batch_size, run.accelerator.gradient_accumulation_steps) == (1, 1)
    assert next(steps_of(run, 2)).metrics["learning_rate"] == 1e-6


def test_the_page_has_what_a_step_waits_for_shards() -> None:
    found, page = json.loads((DOCS / "shards.json").read_text()), (DOCS / "performance.md").read_text()
    for way in WAYS:
        waits, fetches = found[way]["waiting_seconds_per_step"], found[way]["fetched_per_step"]
        assert re.search(rf"\| (\*\*)?{waits:.3f}(\*\*)? \| {fetches:.2f} \|", page), way


def test_every_way_of_reading_shards_is_measured(tmp_path: Path) -> None:
    told = ["--shards", "8", "--steps", "4", "--rounds", "1", "--late-seconds", "0.001", "--step-seconds", "0.01"]
    found = measured(tmp_path, _parser().parse_args(told))
    assert all(found[way]["fetched_per_step"] > 0 for way in WAYS)
