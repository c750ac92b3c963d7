"""The benchmarks of data: synthetic pairs are what they say, and ratios are those of rounds."""

import json
from pathlib import Path

import torch

from benchmarks.scaling import grown_with_rows
from benchmarks.scaling_runs import loaded_run, steps_of
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
