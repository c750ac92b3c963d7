"""The tables are arithmetic on figures: a benchmark made up here has claims whose answers are known."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import plot, results
from benchmarks.cells import all_cells
from benchmarks.page import comparison_table, main_table, missing_comparisons, page_of
from benchmarks.protocol import COMPARISONS
from benchmarks.results import Results

DOCS = Path(__file__).parents[2] / "docs"


def made_up(gain: dict[str, float], *, without: str = "nothing") -> Results:
    """Every run gains what its row is told (0.1 else) and a little of its seed; `without` leaves a row out."""
    runs: dict[str, dict[str, Any]] = {}
    for cell in all_cells():
        if cell.row.key == without:
            continue
        told = gain.get(cell.row.key, 0.1) + 0.001 * cell.seed
        runs[cell.name] = {
            "spec_sha256": "0", "base_reward": 0.6, "gain": told + 0.001 * (hash_of(cell.name) ** 2 % 11), "win_rate": 0.9,
            "base_held_out": 0.4, "held_out_gain": -0.01, "base_following": 1.0,
            "following": 0.99 if cell.beta != 250 else 0.8, "base_diversity": 0.12, "diversity": 0.1, "drift": 0.014,
            "unet_forwards": 7680, "cpu_seconds": 20.0,
        }  # fmt: skip
    return Results("0123456789", runs)


def hash_of(name: str) -> int:
    """A number that is the same in every process, unlike `hash`."""
    return sum(map(ord, name))


def test_a_row_that_gains_more_on_every_seed_is_said_to_and_one_that_gains_less_is_the_opposite() -> None:
    lines = list(comparison_table(made_up({"tailorpo": 0.3, "d3po": 0.2, "tailorpo_g": 0.1})))
    assert any(line.startswith("| TailorPO > D3PO |") and line.endswith("| yes |") for line in lines)
    assert any(line.startswith("| TailorPO-G > TailorPO |") and line.endswith("| **the opposite** |") for line in lines)


def test_a_row_without_all_its_seeds_is_named_and_not_shown() -> None:
    found = made_up({}, without="ddpo")
    assert not any("DDPO" in line for line in main_table(found))
    assert "not shown: DDPO." in page_of(found)
    assert missing_comparisons(found) == sum("ddpo" in (each.better, each.than) for each in COMPARISONS)


def test_a_beta_that_loses_the_prompt_is_not_chosen_however_much_it_gains() -> None:
    found = made_up({})
    for name in list(found.runs):
        if name.startswith("dpo-beta250"):
            found.runs[name]["gain"] = 0.9
    assert found.tuned_beta("dpo") != 250


def test_the_same_figures_give_the_same_page_and_plot(tmp_path: Path) -> None:
    results.save(made_up({}), tmp_path / "figures.json")
    found = results.load(tmp_path / "figures.json")
    assert page_of(found) == page_of(made_up({}))
    plot.draw(found, tmp_path / "a.svg")
    plot.draw(found, tmp_path / "b.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_the_page_in_the_documentation_is_made_of_its_figures() -> None:
    found = results.load(DOCS / "reproduction.json")
    assert (DOCS / "reproduction.md").read_text() == page_of(found)


@pytest.mark.parametrize("comparison", COMPARISONS, ids=lambda each: f"{each.better}-{each.than}-{each.tuned}")
def test_planned_comparisons_are_between_rows_that_exist(comparison: Any) -> None:
    rows = {cell.row.key for cell in all_cells()}
    assert {comparison.better, comparison.than} <= rows
