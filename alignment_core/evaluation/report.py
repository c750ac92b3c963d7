"""From a comparison to the report: the numbers, their intervals, and the verdict."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from alignment_core.evaluation.compare import PROMPT_FOLLOWING, Comparison
from alignment_core.evaluation.files import replace_file
from alignment_core.evaluation.statistics import Scores, bootstrap_interval, gains, win_rate_interval, wins
from alignment_core.reports import Diversity, EvaluationReport, ImageScores, RewardComparison
from alignment_core.seeds import seed_of
from alignment_core.versions import versions

Verdict = Literal["improved", "not_improved", "worse", "unknown"]


@dataclass(frozen=True)
class Provenance:
    """What was compared and how it was drawn, as the report states it; nothing here changes a score."""

    step: int
    num_inference_steps: int
    guidance_scale: float
    spec_sha256: str
    base_model_sha256: str


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are made."""

    num_resamples: int
    confidence: float
    seed: int


def compare_scores(name: str, base: Scores, policy: Scores, bootstrap: Bootstrap) -> RewardComparison:
    """One reward's line of the report. Its draws depend on the seed and its name, not on the other rewards."""
    gain, won = gains(base, policy), wins(base, policy)
    settings = (bootstrap.num_resamples, bootstrap.confidence)
    generator = np.random.default_rng(seed_of(bootstrap.seed, "evaluation", "bootstrap", name))
    return RewardComparison(
        name=name,
        base_mean=float(base.mean()),
        policy_mean=float(policy.mean()),
        gain=float(gain.mean()),
        gain_interval=bootstrap_interval(gain, *settings, generator),
        win_rate=float(won.mean()),
        win_rate_interval=win_rate_interval(won, *settings, generator),
        num_ties=int((base == policy).sum()),
    )


def verdict_of(primary: RewardComparison | None, num_prompts: int) -> Verdict:
    """`improved` or `worse` when the primary gain's interval excludes zero; a single prompt proves nothing."""
    if primary is None or num_prompts < 2:
        return "unknown"
    if primary.gain_interval.low > 0:
        return "improved"
    return "worse" if primary.gain_interval.high < 0 else "not_improved"


def build_report(
    comparison: Comparison, provenance: Provenance, bootstrap: Bootstrap, elapsed_seconds: float
) -> EvaluationReport:
    """The report of `comparison`; its first reward decides the verdict."""
    base, policy = comparison.base, comparison.policy
    lines = {name: compare_scores(name, base.scores[name], policy.scores[name], bootstrap) for name in base.scores}
    prompt_following = lines.pop(PROMPT_FOLLOWING, None)
    rewards = list(lines.values())
    primary = rewards[0] if rewards else None
    return EvaluationReport(
        step=provenance.step,
        num_prompts=len(comparison.prompts),
        seeds_per_prompt=len(comparison.seeds[0]),
        num_inference_steps=provenance.num_inference_steps,
        guidance_scale=provenance.guidance_scale,
        primary_reward=primary.name if primary else None,
        verdict=verdict_of(primary, len(comparison.prompts)),
        rewards=rewards,
        prompt_following=prompt_following,
        diversity=_diversity(comparison),
        spec_sha256=provenance.spec_sha256,
        base_model_sha256=provenance.base_model_sha256,
        versions=versions(),
        elapsed_seconds=elapsed_seconds,
        images=_image_scores(comparison),
    )


def _diversity(comparison: Comparison) -> Diversity | None:
    base, policy = comparison.base.diversity, comparison.policy.diversity
    return None if base is None or policy is None else Diversity(base=base, policy=policy)


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
