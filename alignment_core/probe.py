"""The held-out probe: what the policy draws while it trains, scored against the initial model on the same seeds.

The same few prompts and seeds at every probe, apart from those of the report where there are enough, so that choosing the
best checkpoint by it does not flatter the report.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy import ndarray

from alignment_core.errors import DivergenceError
from alignment_core.evaluation.diversity import pairwise_distance
from alignment_core.evaluation.statistics import Scores, bootstrap_interval
from alignment_core.events import PhaseProgressed
from alignment_core.probe_figures import Line, ProbeFigures
from alignment_core.protocols import RewardModel, Sampler
from alignment_core.seeds import seed_of

MAX_RESAMPLES = 2000  # enough for a guard's interval; the report has its own number


@dataclass(frozen=True)
class Scored:
    """What one model drew: scores by name, and the mean distance of the images of a prompt (None with one seed)."""

    scores: dict[str, Scores]
    diversity: float | None


def probe_prompts(prompts: Sequence[str], max_report_prompts: int, num: int) -> tuple[list[str], int]:
    """The last `num` different prompts, and how many of them the report uses too, which takes the first."""
    different = list(dict.fromkeys(prompts))
    chosen, reported = different[-num:], set(different[:max_report_prompts])
    return chosen, sum(prompt in reported for prompt in chosen)


@dataclass
class HeldOutProbe:
    """Draws and scores `seeds_per_prompt` images of every prompt; the initial model's are drawn once and remembered."""

    prompts: Sequence[str]
    seeds_per_prompt: int
    base: Sampler
    policy: Sampler
    rewards: Mapping[str, RewardModel]
    prompt_following: RewardModel | None
    batch_size: int
    confidence: float
    seed: int
    _base_scored: Scored | None = field(default=None, init=False)

    def measure(self, step: int) -> Generator[PhaseProgressed, None, ProbeFigures]:
        """Yields progress after every batch, so that a caller can leave.

        Raises `DivergenceError` when the policy draws pixels that are no numbers.
        """
        if self._base_scored is None:
            self._base_scored = yield from self._draw("initial model", self.base)
        policy = yield from self._draw(f"policy of step {step}", self.policy)
        return self._figures(step, self._base_scored, policy)

    def _draw(self, model: str, sampler: Sampler) -> Generator[PhaseProgressed, None, Scored]:
        items = [(prompt, number) for prompt in range(len(self.prompts)) for number in range(self.seeds_per_prompt)]
        drawn: list[ndarray] = []
        found: dict[str, list[float]] = {name: [] for name in self._judges}
        for start in range(0, len(items), self.batch_size):
            batch = items[start : start + self.batch_size]
            prompts = [self.prompts[prompt] for prompt, _ in batch]
            pixels = self._sample(model, sampler, prompts, [self._seed_of(*item) for item in batch])
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
            with torch.no_grad():
                for name, judge in self._judges.items():
                    found[name] += judge(images, prompts).tolist()
            drawn += list(pixels)
            yield PhaseProgressed(phase="sampling", done=len(drawn), total=len(items))
        shape = (len(self.prompts), self.seeds_per_prompt)
        return Scored({name: np.array(values).reshape(shape) for name, values in found.items()}, self._diversity(drawn))

    def _sample(self, model: str, sampler: Sampler, prompts: list[str], seeds: list[int]) -> ndarray:
        """8-bit images, as they would be saved."""
        images = sampler(prompts, seeds).float()
        if not images.isfinite().all():
            raise DivergenceError(
                "diverged",
                f"the {model} drew NaN or infinite pixels for a held-out prompt",
                hint="Lower training.learning_rate, raise method.beta, or use bf16 instead of fp16.",
            )
        return (255 * images).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()

    def _seed_of(self, prompt: int, number: int) -> int:
        return seed_of(self.seed, "probe", prompt, number) % 2**32

    @property
    def _judges(self) -> dict[str, RewardModel]:
        judge = self.prompt_following
        return dict(self.rewards) if judge is None else {**self.rewards, "prompt_following": judge}

    def _diversity(self, drawn: list[ndarray]) -> float | None:
        num = self.seeds_per_prompt
        if num < 2:
            return None
        parts = [np.stack(drawn[start : start + num]) for start in range(0, len(drawn), num)]
        return float(np.mean([pairwise_distance(images) for images in parts]))

    def _figures(self, step: int, base: Scored, policy: Scored) -> ProbeFigures:
        lines = {name: self._line(name, base.scores[name], policy.scores[name]) for name in base.scores}
        return ProbeFigures(
            step=step,
            num_prompts=len(self.prompts),
            prompt_following=lines.pop("prompt_following", None),
            rewards=lines,
            diversity=policy.diversity,
            base_diversity=base.diversity,
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
