"""What models draw of the same prompts and seeds, and what every judge gives for it: for the probe and for the report.

Whole images are kept for a few prompts only, so memory does not grow with the number of prompts.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray

from alignment_core.errors import DivergenceError
from alignment_core.evaluation.diversity import pairwise_distance
from alignment_core.evaluation.statistics import Scores
from alignment_core.events import PhaseDivided, PhaseProgressed
from alignment_core.protocols import RewardModel, Sampler
from alignment_core.ranks import ALONE, Ranks
from alignment_core.shapes import Images
from alignment_core.stopwatch import Stopwatch

PROMPT_FOLLOWING = "prompt_following"

Pixels = UInt8[ndarray, "batch height width 3"]


@dataclass(frozen=True)
class DrawPlan:
    """Prompts, each with as many seeds, `batch_size` images at once; images of the prompts at the positions `shown` are kept."""

    prompts: Sequence[str]
    seeds: Sequence[Sequence[int]]
    batch_size: int
    shown: Sequence[int] = ()

    def __post_init__(self) -> None:
        if not self.prompts or len(self.prompts) != len(self.seeds):
            found = f"{len(self.prompts)} prompts, {len(self.seeds)} of seeds"
            raise ValueError(f"one or more prompts, each with its seeds: got {found}")

    @property
    def seeds_per_prompt(self) -> int:
        return len(self.seeds[0])

    @property
    def num_images(self) -> int:
        """Of one model."""
        return len(self.prompts) * self.seeds_per_prompt

    def batches(self) -> Iterator[tuple[list[str], list[int]]]:
        """Prompts and seeds in prompt-major order, `batch_size` of each at a time."""
        items = [(prompt, seed) for prompt, own in zip(self.prompts, self.seeds, strict=True) for seed in own]
        for start in range(0, len(items), self.batch_size):
            batch = items[start : start + self.batch_size]
            yield [prompt for prompt, _ in batch], [seed for _, seed in batch]


@dataclass(frozen=True)
class Judges:
    """The rewards by name, and who scores how well prompts are followed, if anyone does."""

    rewards: Mapping[str, RewardModel]
    prompt_following: RewardModel | None = None

    def __post_init__(self) -> None:
        if PROMPT_FOLLOWING in self.rewards:
            raise ValueError(f"a reward cannot be named {PROMPT_FOLLOWING!r}: the report keeps the name for its judge")

    @property
    def by_name(self) -> dict[str, RewardModel]:
        judge = self.prompt_following
        return dict(self.rewards) if judge is None else {**self.rewards, PROMPT_FOLLOWING: judge}


@dataclass(frozen=True)
class Drawn:
    """What one model drew: its scores by judge, how far its images of each prompt are apart (None with one seed), and its
    images of the prompts shown."""

    scores: dict[str, Scores]
    distances: Scores | None
    images: UInt8[ndarray, "shown seeds height width 3"]


def draw_and_judge(
    models: Mapping[str, Sampler], plan: DrawPlan, judges: Judges, ranks: Ranks = ALONE
) -> Generator[PhaseProgressed | PhaseDivided, None, list[Drawn]]:
    """Let every model draw every batch in turn, and score its images as they come; what each drew, in order.

    Each process draws and scores batches of its own, of the same model as the others. Yields after every batch of any model, so that
    a caller can leave. Scores are those of the 8-bit images that are saved. Raises `DivergenceError` with the model's name when
    it draws NaN.
    """
    tallies = {name: _Tally(plan) for name in models}
    total, done, scoring = len(models) * plan.num_images, 0, 0.0
    for batches in ranks.rounds(plan.batches()):
        for name, sample in models.items():
            for batch in ranks.each(batches, partial(judged_batch, name, sample, judges.by_name)):
                tallies[name].add(batch)
                done += len(batch.pixels)
                scoring += batch.scoring_seconds / ranks.count
                yield PhaseProgressed(phase="sampling", done=done, total=total)
    yield PhaseDivided(phase="sampling", seconds={"scoring": round(scoring, 3)})
    return [tally.drawn() for tally in tallies.values()]


@dataclass(frozen=True)
class JudgedBatch:
    """Images of one batch with their scores by judge."""

    pixels: Pixels
    scores: dict[str, list[float]]
    scoring_seconds: float = 0.0


@torch.no_grad()
def judged_batch(
    name: str, sample: Sampler, judges: Mapping[str, RewardModel], batch: tuple[list[str], list[int]]
) -> JudgedBatch:
    """What a model draws of prompts and seeds, and what it scores. Raises `DivergenceError` with the model's name when it draws NaN."""
    prompts, seeds = batch
    pixels = _drawn_by(name, sample, prompts, seeds)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    watch = Stopwatch()
    with watch.running():
        scores = {judge: score(images, prompts).tolist() for judge, score in judges.items()}
    return JudgedBatch(pixels, scores, watch.seconds)


def _drawn_by(name: str, sample: Sampler, prompts: list[str], seeds: list[int]) -> Pixels:
    """8-bit images, as they would be saved."""
    images = sample(prompts, seeds)
    if not images.isfinite().all():
        raise _not_finite(name, images, prompts)
    return (255 * images.float()).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()


def _not_finite(name: str, images: Images, prompts: list[str]) -> DivergenceError:
    finite = images.isfinite().flatten(1).all(dim=1)
    prompt = prompts[int((~finite).nonzero()[0].item())]
    return DivergenceError(
        "images_not_finite",
        f"the {name} drew NaN or infinite pixels for the prompt {prompt!r}",
        hint="Lower training.learning_rate, raise method.beta, or use bf16 or fp32 instead of fp16.",
    )


@dataclass
class _Tally:
    """One model's running results; holds the images of the prompt in progress and of the prompts shown."""

    plan: DrawPlan
    num_closed: int = 0
    scores: dict[str, list[float]] = field(default_factory=dict)
    in_progress: list[ndarray] = field(default_factory=list)
    kept: list[ndarray] = field(default_factory=list)
    distances: list[float] = field(default_factory=list)

    def add(self, batch: JudgedBatch) -> None:
        """Take in one batch, and close the prompts that it completes."""
        for name, scores in batch.scores.items():
            self.scores.setdefault(name, []).extend(scores)
        for image in batch.pixels:
            self.in_progress.append(image)
            if len(self.in_progress) == self.plan.seeds_per_prompt:
                self._close_prompt()

    def _close_prompt(self) -> None:
        images, self.in_progress = np.stack(self.in_progress), []
        if self.plan.seeds_per_prompt > 1:
            self.distances.append(pairwise_distance(images))
        if self.num_closed in self.plan.shown:
            self.kept.append(images)
        self.num_closed += 1

    def drawn(self) -> Drawn:
        shape = (-1, self.plan.seeds_per_prompt)
        return Drawn(
            scores={name: np.array(scores).reshape(shape) for name, scores in self.scores.items()},
            distances=np.array(self.distances)[:, None] if self.distances else None,
            images=np.stack(self.kept) if self.kept else np.empty((0, shape[1], 0, 0, 3), np.uint8),
        )
