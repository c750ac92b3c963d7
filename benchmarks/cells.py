"""Which runs the benchmark consists of, and running those whose results are not there yet."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment_core.spec import JobSpec
from benchmarks.protocol import (
    BETAS,
    COMMON_BETA,
    CONTROL_BETAS,
    PLAIN_DPO,
    ROWS,
    TEST_SEEDS,
    TUNED,
    TUNING_SEEDS,
    Row,
    spec_of,
)

Figures = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run: a row, a seed, and a beta where that is part of the question."""

    row: Row
    seed: int
    beta: float | None = None

    @property
    def is_tuning(self) -> bool:
        return self.seed in TUNING_SEEDS

    @property
    def name(self) -> str:
        beta = "" if self.beta is None else f"-beta{self.beta:g}"
        return f"{self.row.key}{beta}-seed{self.seed}"

    def spec(self) -> JobSpec:
        return JobSpec.model_validate(spec_of(self.row, self.seed, beta=self.beta, tuning=self.is_tuning))


def all_cells() -> list[Cell]:
    """The most asked-for first, and seed by seed, so that a stopped benchmark has something whole to show."""
    offline = [row for row in ROWS if row.family == "offline"]
    plain = [row for row in ROWS if row.family == "online" and row.preset_reference is None]
    both = [row for row in ROWS if row.family == "online" and row.preset_reference is not None]
    tables = [Cell(row, seed, _common(row)) for rows in (offline, plain, both) for seed in TEST_SEEDS for row in rows]
    others = [beta for beta in BETAS if beta != COMMON_BETA]
    curves = [Cell(row, seed, beta) for seed in TEST_SEEDS for row in TUNED for beta in others]
    tuning = [Cell(row, seed, beta) for seed in TUNING_SEEDS for row in TUNED for beta in BETAS]
    control = [Cell(PLAIN_DPO, seed, beta) for seed in (*TEST_SEEDS, *TUNING_SEEDS) for beta in CONTROL_BETAS]
    return tables + curves + tuning + control


def _common(row: Row) -> float | None:
    return COMMON_BETA if row.family == "offline" else None


def read_result(cell: Cell, folder: Path) -> Figures | None:
    """The figures of a finished run of this very spec, or None."""
    path = folder / f"{cell.name}.json"
    if not path.exists():
        return None
    figures = json.loads(path.read_text())
    return figures if figures["spec_sha256"] == cell.spec().sha256() else None


def run_missing(cells: Sequence[Cell], folder: Path, *, jobs: int) -> Iterator[str]:
    """Run what is missing, `jobs` at a time, yielding a line of progress after each; a failed run stops the benchmark.

    `RuntimeError` with the end of what a failed run said.
    """
    missing = [cell for cell in cells if read_result(cell, folder) is None]
    yield f"{len(cells) - len(missing)} of {len(cells)} runs are done already"
    started = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(_run, cell, folder): cell for cell in missing}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                figures = future.result()
                left = (time.monotonic() - started) / done * (len(missing) - done)
                name = futures[future].name
                yield f"[{done}/{len(missing)}] {name}: gain {figures['gain']:+.3f}, about {left / 60:.0f} min left"
        finally:
            pool.shutdown(cancel_futures=True)


def _run(cell: Cell, folder: Path) -> Figures:
    folder.mkdir(parents=True, exist_ok=True)
    spec, result = folder / f"{cell.name}.spec.json", folder / f"{cell.name}.json"
    spec.write_text(cell.spec().model_dump_json(indent=1))
    command = [sys.executable, "-m", "benchmarks.cell", str(spec), str(result), str(folder / "cache")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if finished.returncode != 0:
        raise RuntimeError(f"{cell.name} failed:\n{finished.stderr[-3000:]}")
    return json.loads(result.read_text())
