"""The figures of every finished run, and what the tables and the plot read off them."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import all_cells, read_result
from benchmarks.protocol import (
    BETAS,
    COMMON_BETA,
    COMPARISONS,
    MAX_LOSS_OF_FOLLOWING,
    ROWS,
    TEST_SEEDS,
    TUNING_SEEDS,
    Comparison,
)
from benchmarks.statistics import PairedTest, holm, paired_test


@dataclass(frozen=True)
class Results:
    """Figures by run name; `commit` is that of the code that ran."""

    commit: str
    runs: dict[str, dict[str, Any]]

    def of(self, row: str, figure: str, beta: float | None = None, seeds: Sequence[int] = TEST_SEEDS) -> list[float]:
        """One figure of a row over the seeds, in their order; `KeyError` where a run is missing."""
        name = row if beta is None else f"{row}-beta{beta:g}"
        return [float(self.runs[f"{name}-seed{seed}"][figure]) for seed in seeds]

    def has(self, row: str, beta: float | None = None, seeds: Sequence[int] = TEST_SEEDS) -> bool:
        name = row if beta is None else f"{row}-beta{beta:g}"
        return all(f"{name}-seed{seed}" in self.runs for seed in seeds)

    def tuned_beta(self, row: str) -> float:
        """The beta of the largest gain on the tuning seeds and prompts, among those that keep prompt-following."""
        if any(not self.has(row, beta, TUNING_SEEDS) for beta in BETAS):
            raise KeyError(f"{row}: not every beta was tried on the tuning seeds")
        eligible = [beta for beta in BETAS if self._lost_following(row, beta) <= MAX_LOSS_OF_FOLLOWING]
        return max(eligible or [max(BETAS)], key=lambda beta: np.mean(self.of(row, "gain", beta, TUNING_SEEDS)))

    def _lost_following(self, row: str, beta: float) -> float:
        base, policy = (self.of(row, name, beta, TUNING_SEEDS) for name in ("base_following", "following"))
        return float(np.mean(base) - np.mean(policy))


def beta_of(row: str) -> float | None:
    """The beta of a row of the main table; None where the family has no such question."""
    families = {each.key: each.family for each in ROWS}
    return COMMON_BETA if families[row] == "offline" else None


def comparisons(results: Results) -> list[tuple[Comparison, PairedTest, float]]:
    """Every planned comparison whose runs are all there, with its Holm-corrected p."""
    found: list[tuple[Comparison, PairedTest]] = []
    for comparison in COMPARISONS:
        try:
            sides = [_gains(results, key, tuned=comparison.tuned) for key in (comparison.better, comparison.than)]
        except KeyError:
            continue
        found.append((comparison, paired_test(sides[0], sides[1])))
    corrected = holm([test.p_value for _, test in found])
    return [(comparison, test, p) for (comparison, test), p in zip(found, corrected, strict=True)]


def _gains(results: Results, row: str, *, tuned: bool) -> list[float]:
    return results.of(row, "gain", results.tuned_beta(row) if tuned else beta_of(row))


def collect(folder: Path, commit: str) -> Results:
    """The results that lie in the benchmark's folder."""
    found = {cell.name: read_result(cell, folder) for cell in all_cells()}
    return Results(commit, {name: figures for name, figures in found.items() if figures is not None})


def save(results: Results, path: Path) -> None:
    """Write them as JSON, one run a line."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(run)}" for name, run in results.runs.items())
    path.write_text(f'{{"commit": {json.dumps(results.commit)}, "runs": {{\n{lines}\n}}}}\n')


def load(path: Path) -> Results:
    """What `save` wrote."""
    found = json.loads(path.read_text())
    return Results(found["commit"], found["runs"])
