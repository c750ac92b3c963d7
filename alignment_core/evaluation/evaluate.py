"""The proof, as events: compare two models, write the report, its page and the picture."""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image

from alignment_core.evaluation.compare import Comparison, compare, seeds_of
from alignment_core.evaluation.files import replace_file, save_png
from alignment_core.evaluation.grid import draw_grid, headline_of
from alignment_core.evaluation.page import render_page
from alignment_core.evaluation.report import Bootstrap, Provenance, build_report, write_report
from alignment_core.events import EvaluationCompleted, Event, PhaseChanged, SamplesDrawn, WarningRaised
from alignment_core.protocols import Images, RewardModel, Sampler
from alignment_core.reports import Drift, EvaluationReport, RunWarning

FEW_PROMPTS = 20  # a percentile bootstrap over fewer covers clearly less than it says

MeasureDrift = Callable[[Images, Sequence[str]], Drift]


def evaluate(
    base: Sampler,
    policy: Sampler,
    *,
    prompts: Sequence[str],
    max_prompts: int,
    seeds_per_prompt: int,
    rewards: Mapping[str, RewardModel],
    prompt_following: RewardModel | None,
    batch_size: int,
    grid_prompts: int,
    bootstrap: Bootstrap,
    provenance: Provenance,
    workdir: Path,
    folder: Path,
    measure_drift: MeasureDrift | None = None,
) -> Generator[Event, None, None]:
    """Compare on the first `max_prompts` different prompts, with seeds that follow from `bootstrap.seed`.

    Yields progress after every sampled batch, then `SamplesDrawn` and `EvaluationCompleted`. Writes `report.json`,
    `report.html`, `grid.png` and `images/MODEL-PROMPT-SEED.png` to `folder`, which lies in `workdir`. The first of
    `rewards` decides the verdict; `measure_drift` is given the policy's kept images and their prompts. Raises what
    `compare` raises.
    """
    started = time.monotonic()
    prompts = choose_prompts(prompts, max_prompts)
    warnings = list(provenance.warnings)
    if len(prompts) < FEW_PROMPTS:
        few = _few_prompts(len(prompts), provenance.step)
        warnings.append(RunWarning(code=few.code, message=few.message, step=few.step))
        yield few
    yield PhaseChanged(phase="sampling")
    comparison = yield from compare(
        base,
        policy,
        prompts=prompts,
        seeds=seeds_of(bootstrap.seed, len(prompts), seeds_per_prompt),
        rewards=rewards,
        prompt_following=prompt_following,
        batch_size=batch_size,
        grid_prompts=grid_prompts,
    )
    yield PhaseChanged(phase="evaluating")
    drift = None if measure_drift is None else measure_drift(*_kept_images(comparison))
    report = build_report(comparison, provenance, bootstrap, time.monotonic() - started, drift)
    report = report.model_copy(update={"warnings": warnings})
    yield from _publish(report, comparison, workdir, folder)


def _publish(report: EvaluationReport, comparison: Comparison, workdir: Path, folder: Path) -> Iterator[Event]:
    """Write everything, and say so; the report last, so that whoever finds it finds the rest."""
    _save_images(comparison, folder / "images")
    shown = [comparison.prompts[index] for index in comparison.shown]
    grid = draw_grid(shown, comparison.base.images, comparison.policy.images, headline_of(report))
    save_png(grid, folder / "grid.png")
    yield SamplesDrawn(step=report.step, path=_relative(folder / "grid.png", workdir), prompts=shown)
    replace_file(folder / "report.html", render_page(report, comparison).encode())
    write_report(report, folder / "report.json")
    yield EvaluationCompleted(
        step=report.step,
        path=_relative(folder / "report.json", workdir),
        page=_relative(folder / "report.html", workdir),
        report=report.model_dump(mode="json"),
    )


def choose_prompts(prompts: Sequence[str], max_prompts: int) -> list[str]:
    """The first `max_prompts` different prompts: one that came twice would count as two in every interval."""
    return list(dict.fromkeys(prompts))[:max_prompts]


def _few_prompts(num_prompts: int, step: int) -> WarningRaised:
    return WarningRaised(
        code="few_evaluation_prompts",
        message=f"{num_prompts} evaluation prompts: intervals of fewer than {FEW_PROMPTS} prompts are too narrow",
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


def _relative(path: Path, workdir: Path) -> str:
    return path.relative_to(workdir).as_posix()
