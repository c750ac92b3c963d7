"""From a comparison to the report: the numbers, their intervals, and the verdict."""

from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, assert_never

import numpy as np

from alignment_core.evaluation.compare import Comparison
from alignment_core.evaluation.draw_and_judge import PROMPT_FOLLOWING
from alignment_core.evaluation.files import replace_file
from alignment_core.evaluation.statistics import (
    Scores,
    bca_interval,
    bootstrap_interval,
    gains,
    paired_p_value,
    prompts_won,
    wins,
)
from alignment_core.events import ResultSelected, Throughput
from alignment_core.reports import (
    BinTable,
    ComparedModel,
    Curve,
    Diversity,
    Drift,
    EvaluationReport,
    ImageScores,
    Interval,
    IntervalMethod,
    RewardComparison,
    RunWarning,
    Subject,
    wilson_interval,
)
from alignment_core.seeds import seed_of
from alignment_core.versions import versions

Verdict = Literal["improved", "not_improved", "worse", "unknown"]


@dataclass(frozen=True)
class Provenance:
    """What was compared, how it was drawn and how it came about, as the report states it; nothing here changes a score.

    `step` names the report's folder. `trained` are the rewards that the method optimised; `curves`, `tables` and `warnings`
    are what the run said of itself, and `result` why this checkpoint is its result.
    """

    step: int
    base: ComparedModel
    policy: ComparedModel
    num_inference_steps: int
    guidance_scale: float
    spec_sha256: str
    base_model_sha256: str
    dataset_sha256: str | None = None
    spec: dict[str, Any] | None = None
    seed: int | None = None
    method: str | None = None
    reference: str | None = None
    reg_mode: str | None = None
    device: str | None = None
    precision: str | None = None
    logit_error: float | None = None
    throughput: Throughput | None = None
    trained: frozenset[str] = frozenset()
    curves: Sequence[Curve] = ()
    tables: Sequence[BinTable] = ()
    warnings: Sequence[RunWarning] = ()
    result: ResultSelected | None = None
    subject: Subject | None = None


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made."""

    num_resamples: int
    confidence: float
    seed: int
    method: IntervalMethod = "percentile"

    def interval(self, values: Scores, generator: np.random.Generator) -> Interval:
        """Of the mean of `values`, with prompts resampled."""
        match self.method:
            case "percentile":
                return bootstrap_interval(values, self.num_resamples, self.confidence, generator)
            case "bca":
                return bca_interval(values, self.num_resamples, self.confidence, generator)
            case _:
                assert_never(self.method)


def compare_scores(
    name: str, base: Scores, policy: Scores, bootstrap: Bootstrap, *, trained: bool = False
) -> RewardComparison:
    """One reward's line of the report. Its draws depend on the seed and its name, not on the other rewards."""
    gain, won = gains(base, policy), wins(base, policy)
    generator = np.random.default_rng(seed_of(bootstrap.seed, "evaluation", "bootstrap", name))
    num_won, spread = prompts_won(base, policy), float(base.std())
    return RewardComparison(
        name=name,
        trained=trained,
        base_mean=float(base.mean()),
        policy_mean=float(policy.mean()),
        gain=float(gain.mean()),
        gain_interval=bootstrap.interval(gain, generator),
        p_value=paired_p_value(gain),
        effect_size=float(gain.mean()) / spread if spread > 0 else None,
        win_rate=float(won.mean()),
        bootstrap_interval=bootstrap.interval(won, generator),
        prompts_won=num_won / len(won),
        wilson_interval=wilson_interval(num_won, len(won), bootstrap.confidence),
        num_ties=int((base == policy).sum()),
    )


def verdict_of(primary: RewardComparison | None, num_prompts: int) -> Verdict:
    """`improved` or `worse` when the primary gain's interval excludes zero; a single prompt proves nothing."""
    if primary is None or num_prompts < 2:
        return "unknown"
    if primary.gain_interval.low > 0:
        return "improved"
    return "worse" if primary.gain_interval.high < 0 else "not_improved"


@dataclass(frozen=True)
class Figures:
    """What a report says of the scores alone."""

    rewards: Sequence[RewardComparison]
    prompt_following: RewardComparison | None
    diversity: Diversity | None
    interval_method: IntervalMethod


def figures_of(comparison: Comparison, bootstrap: Bootstrap, trained: Set[str] = frozenset()) -> Figures:
    """The line of every reward, that of the judge of prompt-following, and how far images of one prompt are apart."""
    base, policy = comparison.base.scores, comparison.policy.scores
    lines = {name: compare_scores(name, base[name], policy[name], bootstrap, trained=name in trained) for name in base}
    prompt_following = lines.pop(PROMPT_FOLLOWING, None)
    return Figures(list(lines.values()), prompt_following, _diversity(comparison, bootstrap), bootstrap.method)


def build_report(
    comparison: Comparison,
    provenance: Provenance,
    bootstrap: Bootstrap,
    elapsed_seconds: float,
    drift: Drift | None = None,
) -> EvaluationReport:
    """The report of `comparison`; its first reward decides the verdict."""
    figures = figures_of(comparison, bootstrap, provenance.trained)
    return report_with(figures, comparison, provenance, elapsed_seconds, drift)


def report_with(
    figures: Figures,
    comparison: Comparison,
    provenance: Provenance,
    elapsed_seconds: float,
    drift: Drift | None = None,
) -> EvaluationReport:
    """The same of figures that are there already."""
    primary = figures.rewards[0] if figures.rewards else None
    return EvaluationReport(
        step=provenance.step,
        subject=provenance.subject,
        base=provenance.base,
        policy=provenance.policy,
        num_prompts=len(comparison.prompts),
        seeds_per_prompt=len(comparison.seeds[0]),
        num_inference_steps=provenance.num_inference_steps,
        guidance_scale=provenance.guidance_scale,
        primary_reward=primary.name if primary else None,
        verdict=verdict_of(primary, len(comparison.prompts)),
        rewards=list(figures.rewards),
        prompt_following=figures.prompt_following,
        interval_method=figures.interval_method,
        diversity=figures.diversity,
        drift=drift,
        curves=list(provenance.curves),
        timestep_tables=list(provenance.tables),
        method=provenance.method,
        reference=provenance.reference,
        reg_mode=provenance.reg_mode,
        warnings=list(provenance.warnings),
        selected_by=provenance.result and provenance.result.selected_by,
        last_step=provenance.result and provenance.result.last_step,
        stopped_by=provenance.result and provenance.result.stopped_by,
        seed=provenance.seed,
        spec=provenance.spec,
        spec_sha256=provenance.spec_sha256,
        dataset_sha256=provenance.dataset_sha256,
        base_model_sha256=provenance.base_model_sha256,
        versions=versions(),
        device=provenance.device,
        precision=provenance.precision,
        logit_error=provenance.logit_error,
        throughput=provenance.throughput,
        elapsed_seconds=elapsed_seconds,
        images=_image_scores(comparison),
    )


def _diversity(comparison: Comparison, bootstrap: Bootstrap) -> Diversity | None:
    base, policy = comparison.base.distances, comparison.policy.distances
    if base is None or policy is None:
        return None
    generator = np.random.default_rng(seed_of(bootstrap.seed, "evaluation", "bootstrap", "diversity of images"))
    change = bootstrap.interval(policy - base, generator)
    return Diversity(base=float(base.mean()), policy=float(policy.mean()), change_interval=change)


def _image_scores(comparison: Comparison) -> list[ImageScores]:
    base, policy = comparison.base.scores, comparison.policy.scores
    return [
        ImageScores(
            prompt=prompt,
            seed=seed,
            base={name: float(scores[row, column]) for name, scores in base.items()},
            policy={name: float(scores[row, column]) for name, scores in policy.items()},
        )
        for row, (prompt, seeds) in enumerate(zip(comparison.prompts, comparison.seeds, strict=True))
        for column, seed in enumerate(seeds)
    ]


def write_report(report: EvaluationReport, path: Path) -> None:
    """Write the report to `path` as JSON."""
    replace_file(path, (report.model_dump_json(indent=2) + "\n").encode())
