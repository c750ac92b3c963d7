"""The job of each family, and a run of it that ends with its report."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from alignment_core.alignment import align
from alignment_core.events import EvaluationCompleted, SamplesDrawn, StepCompleted
from alignment_core.reports import EvaluationReport
from alignment_core.spec import JobSpec
from demo.assets import ASSETS
from demo.families.assets import FAMILY_ASSETS

UPDATED = ("training", "evaluation")  # the other parts are replaced whole


@dataclass(frozen=True)
class Aligned:
    """What a run left to look at."""

    report: EvaluationReport
    picture: Path
    page: Path


def family_job(name: str, **changes: dict[str, Any]) -> JobSpec:
    """The job of a family, its paths absolute and its prompts the held-out ones; `changes` update its parts."""
    spec = yaml.safe_load((FAMILY_ASSETS.parent / f"{name}.yaml").read_text())
    spec["model"]["path"] = str(FAMILY_ASSETS / name)
    spec["method"]["dataset"]["path"] = str(ASSETS / "pairs.parquet")
    spec["evaluation"]["prompt_following"]["weights"]["path"] = str(ASSETS / "classifiers" / "judge")
    spec["evaluation"]["prompts"] = (ASSETS / "prompts.txt").read_text().splitlines()
    for part, values in changes.items():
        spec[part] = {**spec[part], **values} if part in UPDATED else values
    return JobSpec.model_validate(spec)


def aligned(spec: JobSpec, workdir: Path, progress: Callable[[int, int], None]) -> Aligned:
    """Runs `spec` in `workdir`, which is emptied first, to its report."""
    shutil.rmtree(workdir, ignore_errors=True)
    picture = ""
    for event in align(spec, workdir, cache_dir=workdir / "cache"):
        match event:
            case StepCompleted():
                progress(event.step, event.total_steps)
            case SamplesDrawn():
                picture = event.path
            case EvaluationCompleted():
                report = EvaluationReport.model_validate(event.report)
                return Aligned(report, workdir / picture, workdir / (event.page or event.path))
            case _:
                pass
    raise RuntimeError("the run ended without a report")
