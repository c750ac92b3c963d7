"""The benchmarks of data: synthetic pairs are what they say, and ratios are those of rounds."""

import json
from pathlib import Path

import torch

from benchmarks import speed_plot
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


def test_the_plot_is_that_of_the_figures_beside_it(tmp_path: Path) -> None:
    speed_plot.draw_caching(json.loads((DOCS / "caching.json").read_text()), tmp_path / "plot.svg")
    assert (tmp_path / "plot.svg").read_bytes() == (DOCS / "caching.svg").read_bytes()
