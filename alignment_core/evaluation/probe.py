"""The held-out probe: what the policy draws while it trains, scored against the initial model on the same seeds.

The same few prompts and seeds at every probe, apart from those of the report where there are enough, so that choosing the
best checkpoint by it does not flatter the report.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from alignment_core.evaluation.draw_and_judge import PROMPT_FOLLOWING, Drawn, DrawPlan, Judges, draw_and_judge
from alignment_core.evaluation.probe_figures import Line, ProbeFigures
from alignment_core.evaluation.statistics import Scores, bootstrap_interval
from alignment_core.events import PhaseDivided, PhaseProgressed
from alignment_core.protocols import Sampler
from alignment_core.ranks import ALONE, Ranks
from alignment_core.seeds import seed_of

MAX_RESAMPLES = 2000  # enough for a guard's interval; the report has its own number


def probe_prompts(prompts: Sequence[str], max_report_prompts: int, num: int) -> tuple[list[str], int]:
    """The last `num` different prompts, and how many of them the report uses too, which takes the first."""
    different = list(dict.fromkeys(prompts))
    chosen, reported = different[-num:], set(different[:max_report_prompts])
    return chosen, sum(prompt in reported for prompt in chosen)


def plan_probe(prompts: Sequence[str], *, seeds_per_prompt: int, batch_size: int, seed: int) -> DrawPlan:
    """What is drawn for a probe; its seeds are others than a report's."""
    seeds = [
        [seed_of(seed, "probe", prompt, number) % 2**32 for number in range(seeds_per_prompt)]
        for prompt in range(len(prompts))
    ]
    return DrawPlan(prompts, seeds, batch_size)


@dataclass
class HeldOutProbe:
    """Draws and scores what the plan says; the initial model's images are drawn once and remembered."""

    base: Sampler
    policy: Sampler
    plan: DrawPlan
    judges: Judges
    confidence: float
    seed: int
    ranks: Ranks = ALONE
    _base_drawn: Drawn | None = field(default=None, init=False)

    def measure(self, step: int) -> Generator[PhaseProgressed | PhaseDivided, None, ProbeFigures]:
        """Yields progress after every batch, so that a caller can leave.

        Raises `DivergenceError` when the policy draws pixels that are no numbers.
        """
        if self._base_drawn is None:
            (self._base_drawn,) = yield from self._draw("initial model", self.base)
        (policy,) = yield from self._draw(f"policy of step {step}", self.policy)
        return self._figures(step, self._base_drawn, policy)

    def _draw(self, name: str, sample: Sampler) -> Generator[PhaseProgressed | PhaseDivided, None, list[Drawn]]:
        return draw_and_judge({name: sample}, self.plan, self.judges, self.ranks)

    def _figures(self, step: int, base: Drawn, policy: Drawn) -> ProbeFigures:
        lines = {name: self._line(name, base.scores[name], policy.scores[name]) for name in base.scores}
        return ProbeFigures(
            step=step,
            num_prompts=len(self.plan.prompts),
            prompt_following=lines.pop(PROMPT_FOLLOWING, None),
            rewards=lines,
            diversity=_diversity(policy),
            base_diversity=_diversity(base),
        )

    def _line(self, name: str, base: Scores, policy: Scores) -> Line:
        gain = policy - base
        generator = np.random.default_rng(seed_of(self.seed, "probe", "bootstrap", name))
        interval = bootstrap_interval(gain, MAX_RESAMPLES, self.confidence, generator)
        return Line(
            mean=float(policy.mean()),
            gain=float(gain.mean()),
            low=interval.low,
            high=interval.high,
            spread=float(np.sqrt((base.var() + policy.var()) / 2)),
        )


def _diversity(drawn: Drawn) -> float | None:
    """The mean distance of the images of a prompt; None with one seed."""
    return None if drawn.distances is None else float(drawn.distances[:, 0].mean())
