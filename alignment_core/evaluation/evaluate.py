"""The proof, as events: compare two models, write the report, its page and the picture."""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image

from alignment_core.evaluation.compare import Comparison, compare, plan_comparison
from alignment_core.evaluation.draw_and_judge import DrawPlan, Judges
from alignment_core.evaluation.files import replace_file, save_png
from alignment_core.evaluation.grid import draw_grid, headline_of, places_in_grid
from alignment_core.evaluation.page import render_page
from alignment_core.evaluation.report import Bootstrap, Provenance, build_report, write_report
from alignment_core.events import EvaluationCompleted, Event, PhaseChanged, SamplesDrawn, WarningRaised
from alignment_core.protocols import Sampler
from alignment_core.ranks import ALONE, Ranks
from alignment_core.reports import Drift, EvaluationReport, RunWarning
from alignment_core.shapes import Images
from alignment_core.spec.counted import counted

FEW_PROMPTS = 20  # a percentile bootstrap over fewer covers clearly less than it says

MeasureDrift = Callable[[Images, Sequence[str]], Drift]


@dataclass(frozen=True)
class ModelPair:
    """The two sides of a report; `measure_drift` is given the policy's kept images and their prompts."""

    base: Sampler
    policy: Sampler
    measure_drift: MeasureDrift | None = None


@dataclass(frozen=True)
class EvaluationProtocol:
    """How two models are compared: what they draw, who judges it, and how intervals are made.

    The first of the judges' rewards decides the verdict.
    """

    plan: DrawPlan
    judges: Judges
    bootstrap: Bootstrap


@dataclass(frozen=True)
class ReportFolder:
    """Where a report is written: `folder`, which lies in the work folder that events' paths begin from."""

    folder: Path
    workdir: Path

    def relative(self, name: str) -> str:
        return (self.folder / name).relative_to(self.workdir).as_posix()


def protocol_of(
    prompts: Sequence[str],
    judges: Judges,
    bootstrap: Bootstrap,
    *,
    max_prompts: int,
    seeds_per_prompt: int,
    batch_size: int,
    grid_prompts: int,
) -> EvaluationProtocol:
    """The first `max_prompts` different prompts, with seeds that follow from `bootstrap.seed`."""
    plan = plan_comparison(
        choose_prompts(prompts, max_prompts),
        seeds_per_prompt=seeds_per_prompt,
        batch_size=batch_size,
        grid_prompts=grid_prompts,
        seed=bootstrap.seed,
    )
    return EvaluationProtocol(plan, judges, bootstrap)


def evaluate(
    models: ModelPair,
    protocol: EvaluationProtocol,
    provenance: Provenance,
    place: ReportFolder,
    ranks: Ranks = ALONE,
) -> Generator[Event, None, None]:
    """Compare both models and write the report: `report.json`, `report.html`, `grid.png`, `images/MODEL-PROMPT-SEED.png`.

    The processes of a run draw together, and the first one writes. Yields progress after every sampled batch, then `SamplesDrawn` and `EvaluationCompleted`. Raises what `compare` raises.
    """
    started = time.monotonic()
    num_prompts = len(protocol.plan.prompts)
    if num_prompts < FEW_PROMPTS:
        few = _few_prompts(num_prompts, provenance.step)
        warning = RunWarning(code=few.code, message=few.message, step=few.step)
        provenance = replace(provenance, warnings=[*provenance.warnings, warning])
        yield few
    yield PhaseChanged(phase="sampling")
    comparison = yield from compare(models.base, models.policy, protocol.plan, protocol.judges, ranks)
    yield PhaseChanged(phase="evaluating")
    drift = None if models.measure_drift is None else models.measure_drift(*_kept_images(comparison))
    report = build_report(comparison, provenance, protocol.bootstrap, time.monotonic() - started, drift)
    if ranks.is_first:
        yield from _publish(report, comparison, place)


def _publish(report: EvaluationReport, comparison: Comparison, place: ReportFolder) -> Iterator[Event]:
    """Write everything, and say so; the report last, so that whoever finds it finds the rest."""
    folder = place.folder
    _save_images(comparison, folder / "images")
    shown = [comparison.prompts[index] for index in comparison.shown]
    grid = draw_grid(shown, comparison.base.images, comparison.policy.images, headline_of(report))
    save_png(grid, folder / "grid.png")
    seeds = [comparison.seeds[index] for index in comparison.shown]
    places = places_in_grid(shown, seeds, comparison.base.images)
    yield SamplesDrawn(step=report.step, path=place.relative("grid.png"), prompts=shown, grid=places)
    replace_file(folder / "report.html", render_page(report, comparison).encode())
    write_report(report, folder / "report.json")
    yield EvaluationCompleted(
        step=report.step,
        path=place.relative("report.json"),
        page=place.relative("report.html"),
        report=report.model_dump(mode="json"),
    )


def choose_prompts(prompts: Sequence[str], max_prompts: int) -> list[str]:
    """The first `max_prompts` different prompts: one that came twice would count as two in every interval."""
    return list(dict.fromkeys(prompts))[:max_prompts]


def _few_prompts(num_prompts: int, step: int) -> WarningRaised:
    return WarningRaised(
        code="few_evaluation_prompts",
        message=f"{counted(num_prompts, 'evaluation prompt')}: intervals of fewer than {FEW_PROMPTS} prompts are too narrow",
        step=step,
    )


def _kept_images(comparison: Comparison) -> tuple[Images, list[str]]:
    """The policy's images of the picture, in [0, 1], and the prompt of each."""
    images = comparison.policy.images
    pixels = torch.from_numpy(images.reshape(-1, *images.shape[2:])).permute(0, 3, 1, 2).float() / 255
    return pixels, [comparison.prompts[index] for index in comparison.shown for _ in range(images.shape[1])]


def _save_images(comparison: Comparison, folder: Path) -> None:
    for model, drawn in (("base", comparison.base), ("policy", comparison.policy)):
        for prompt, pictures in zip(comparison.shown, drawn.images, strict=True):
            for seed, pixels in zip(comparison.seeds[prompt], pictures, strict=True):
                save_png(Image.fromarray(pixels), folder / f"{model}-{prompt}-{seed}.png")
