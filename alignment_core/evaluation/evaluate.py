"""The proof, as events: compare the policy with the model it started from, write the report and the picture."""

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from PIL import Image

from alignment_core.evaluation.compare import Comparison, compare, seeds_of
from alignment_core.evaluation.files import save_png
from alignment_core.evaluation.grid import draw_grid, headline_of
from alignment_core.evaluation.report import Bootstrap, Provenance, build_report, write_report
from alignment_core.events import EvaluationCompleted, Event, PhaseChanged, SamplesDrawn, WarningRaised
from alignment_core.protocols import RewardModel, Sampler

FEW_PROMPTS = 20  # a percentile bootstrap over fewer covers clearly less than it says


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
) -> Iterator[Event]:
    """Compare on the first `max_prompts` different prompts, with seeds that follow from `bootstrap.seed`.

    Yields progress after every sampled batch, then `SamplesDrawn` and `EvaluationCompleted`. Writes
    `evaluation/step-XXXXXXXX/{report.json, grid.png, images/MODEL-PROMPT-SEED.png}` under `workdir`. The first of
    `rewards` decides the verdict. Raises what `compare` raises.
    """
    started = time.monotonic()
    prompts = choose_prompts(prompts, max_prompts)
    if len(prompts) < FEW_PROMPTS:
        yield _few_prompts(len(prompts), provenance.step)
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
    report = build_report(comparison, provenance, bootstrap, time.monotonic() - started)
    folder = workdir / "evaluation" / f"step-{provenance.step:08d}"
    _save_images(comparison, folder / "images")
    shown = [comparison.prompts[index] for index in comparison.shown]
    grid = draw_grid(shown, comparison.base.images, comparison.policy.images, headline_of(report))
    save_png(grid, folder / "grid.png")
    yield SamplesDrawn(step=provenance.step, path=_relative(folder / "grid.png", workdir), prompts=shown)
    write_report(report, folder / "report.json")
    yield EvaluationCompleted(
        step=provenance.step,
        path=_relative(folder / "report.json", workdir),
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


def _save_images(comparison: Comparison, folder: Path) -> None:
    for model, drawn in (("base", comparison.base), ("policy", comparison.policy)):
        for prompt, pictures in zip(comparison.shown, drawn.images, strict=True):
            for seed, pixels in zip(comparison.seeds[prompt], pictures, strict=True):
                save_png(Image.fromarray(pixels), folder / f"{model}-{prompt}-{seed}.png")


def _relative(path: Path, workdir: Path) -> str:
    return path.relative_to(workdir).as_posix()
