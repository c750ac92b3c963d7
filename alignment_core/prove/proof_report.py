"""The report of an evaluation: each contender against the anchor as the report of a job has it, and what holds for all of them."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image

from alignment_core.evaluation.compare import Comparison
from alignment_core.evaluation.files import replace_file, save_png
from alignment_core.evaluation.grid import draw_grid, headline_of, places_in_grid
from alignment_core.evaluation.page import render_page
from alignment_core.evaluation.report import Figures, Provenance, report_with
from alignment_core.evaluation.score_table import ScoreTable, made_of, standings_of
from alignment_core.evaluation.scored_prompts import DrawnSoFar
from alignment_core.events import EvaluationCompleted, Event, ProofCompleted, SamplesDrawn
from alignment_core.reports import (
    ComparedModel,
    ContenderFacts,
    Drift,
    EvaluationReport,
    ProofReport,
    RunWarning,
    ScoredBy,
    Standing,
)
from alignment_core.spec import ProofSpec
from alignment_core.spec.places import RunLabel

SCORES, REPORT = "scores.parquet", "report.json"


@dataclass(frozen=True)
class Circumstances:
    """What was compared, and how it came about; nothing here changes a score."""

    spec: ProofSpec
    drawn: Mapping[str, DrawnSoFar]
    drifts: Mapping[str, Drift]
    warnings: Sequence[RunWarning]
    device: str
    label: RunLabel
    elapsed_seconds: float
    written_at: datetime

    def facts(self, name: str) -> ContenderFacts:
        return self.drawn[name].made[0].contender


def publish(table: ScoreTable, circumstances: Circumstances, shown: Sequence[int], workdir: Path) -> Iterator[Event]:
    """Write the pages, the pictures and the report, and say so; the report last, so that whoever finds it finds the rest."""
    standings = standings_of(table)
    comparisons = []
    for number, standing in enumerate(standings.standings, start=1):
        comparison = table.against_anchor(standing.contender, shown)
        report = _comparison_report(comparison, circumstances, standing)
        folder = workdir / "comparisons" / standing.contender
        yield from _pictures(report, comparison, folder, number, workdir)
        comparisons.append(report.model_copy(update={"images": []}))
        yield EvaluationCompleted(
            step=number,
            path=REPORT,
            page=(folder / "report.html").relative_to(workdir).as_posix(),
            report=comparisons[-1].model_dump(mode="json"),
        )
    whole = _whole_report(table, circumstances, comparisons, standings.best, workdir / SCORES)
    replace_file(workdir / REPORT, (whole.model_dump_json(indent=2) + "\n").encode())
    yield ProofCompleted(path=REPORT, scores=SCORES, report=whole.model_dump(mode="json"))


def _comparison_report(comparison: Comparison, circumstances: Circumstances, standing: Standing) -> EvaluationReport:
    """The report of a job, of two models that need not come from each other."""
    spec, drawn = circumstances.spec, circumstances.drawn
    anchor, made = circumstances.facts(spec.anchor_name), drawn[spec.anchor_name].made[0]
    provenance = Provenance(
        step=0,
        base=_compared(anchor),
        policy=_compared(circumstances.facts(standing.contender)),
        num_inference_steps=spec.sampling.num_inference_steps,
        guidance_scale=spec.sampling.guidance_scale,
        spec_sha256=spec.sha256(),
        base_model_sha256=anchor.sha256,
        spec=_told(spec),
        seed=spec.seed,
        device=circumstances.device,
        precision=made.precision,
        warnings=circumstances.warnings,
    )
    figures = Figures(standing.rewards, standing.prompt_following, standing.diversity, "bca")
    drift = circumstances.drifts.get(standing.contender)
    report = report_with(figures, comparison, provenance, circumstances.elapsed_seconds, drift)
    return report.model_copy(update={"versions": dict(made.versions)})


def _told(spec: ProofSpec) -> dict[str, Any]:
    """The spec without its prompts, which the table of scores has, each once for every image."""
    return spec.model_dump(mode="json", exclude={"prompts"})


def _compared(facts: ContenderFacts) -> ComparedModel:
    return ComparedModel(label=facts.name, step=None, spec_sha256=None)


def _whole_report(
    table: ScoreTable, circumstances: Circumstances, comparisons: list[EvaluationReport], best: str | None, scores: Path
) -> ProofReport:
    spec, drawn = circumstances.spec, circumstances.drawn
    made = made_of(drawn)
    with scores.open("rb") as file:
        scores_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ProofReport(
        subject_id=circumstances.label.job_id,
        name=circumstances.label.job_name,
        anchor=spec.anchor_name,
        best=best,
        contenders=[circumstances.facts(name) for name in drawn],
        judges=[ScoredBy(name=name, sha256=found) for name, found in table.judges.items()],
        comparisons=comparisons,
        num_prompts=len(table.prompts),
        seeds_per_prompt=spec.seeds_per_prompt,
        num_images=len(drawn) * len(table.prompts) * spec.seeds_per_prompt,
        prompts_sha256=prompts_sha256(table.prompts),
        scores_sha256=scores_sha256,
        spec=_told(spec),
        spec_sha256=spec.sha256(),
        seed=spec.seed,
        confidence=spec.confidence,
        bootstrap_resamples=spec.bootstrap_resamples,
        interval_method="bca",
        precision=made.precision,
        cards=list(made.cards),
        versions=dict(made.versions),
        warnings=list(circumstances.warnings),
        elapsed_seconds=circumstances.elapsed_seconds,
        written_at=circumstances.written_at,
    )


def prompts_sha256(prompts: Sequence[str]) -> str:
    """Of the prompts in their order, as JSON."""
    return hashlib.sha256(json.dumps(list(prompts), ensure_ascii=False).encode()).hexdigest()


# --- pictures ------------------------------------------------------------------------------------------------------


def _pictures(
    report: EvaluationReport, comparison: Comparison, folder: Path, number: int, workdir: Path
) -> Iterator[Event]:
    shown = [comparison.prompts[index] for index in comparison.shown]
    alike = _of_one_size(comparison)
    grid = draw_grid(shown, alike.base.images, alike.policy.images, headline_of(report))
    save_png(grid, folder / "grid.png")
    seeds = [comparison.seeds[index] for index in comparison.shown]
    places = places_in_grid(shown, seeds, alike.base.images)
    path = (folder / "grid.png").relative_to(workdir).as_posix()
    yield SamplesDrawn(step=number, path=path, prompts=shown, grid=places)
    replace_file(folder / "report.html", render_page(report, comparison).encode())


def _of_one_size(comparison: Comparison) -> Comparison:
    """Images of models of two resolutions, those of the contender in the size of the anchor's: side by side they share a tile."""
    base, policy = comparison.base.images, comparison.policy.images
    if base.shape == policy.shape:
        return comparison
    return replace(comparison, policy=replace(comparison.policy, images=_resized(policy, base.shape[2:4])))


def _resized(
    images: UInt8[ndarray, "shown seeds height width 3"], size: tuple[int, ...]
) -> UInt8[ndarray, "shown seeds height2 width2 3"]:
    height, width = size
    return np.stack(
        [
            [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.LANCZOS)) for one in own]
            for own in images
        ]
    )
