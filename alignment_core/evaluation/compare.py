"""Draw with both models from the same prompts and seeds, and score every image as it comes.

Whole images are kept for the prompts of the picture only, so memory does not grow with the number of prompts.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray

from alignment_core.errors import AlignmentError
from alignment_core.evaluation.diversity import pairwise_distance
from alignment_core.evaluation.statistics import Scores
from alignment_core.events import PhaseProgressed
from alignment_core.protocols import Images, RewardModel, Sampler
from alignment_core.seeds import seed_of

PROMPT_FOLLOWING = "prompt_following"

Pixels = UInt8[ndarray, "batch height width 3"]


@dataclass(frozen=True)
class Drawn:
    """What one model drew: its scores by reward, how far its images of each prompt are apart (None with one seed), and its
    images of the picture's prompts."""

    scores: dict[str, Scores]
    distances: Scores | None
    images: UInt8[ndarray, "grid_prompts seeds height width 3"]


@dataclass(frozen=True)
class Comparison:
    """Both models on the same prompts and seeds.

    `shown` are the positions of the prompts whose images are kept. `scores` holds the judge as `prompt_following`, if
    there is one.
    """

    prompts: tuple[str, ...]
    seeds: tuple[tuple[int, ...], ...]
    shown: tuple[int, ...]
    base: Drawn
    policy: Drawn


def seeds_of(seed: int, num_prompts: int, seeds_per_prompt: int) -> tuple[tuple[int, ...], ...]:
    """The seeds of every prompt, by the run's seed and the positions alone; more of either changes no earlier one.

    32 bits, so that a browser's JSON reads them exactly.
    """
    return tuple(
        tuple(seed_of(seed, "evaluation", prompt, number) % 2**32 for number in range(seeds_per_prompt))
        for prompt in range(num_prompts)
    )


def compare(
    base: Sampler,
    policy: Sampler,
    *,
    prompts: Sequence[str],
    seeds: Sequence[Sequence[int]],
    rewards: Mapping[str, RewardModel],
    prompt_following: RewardModel | None,
    batch_size: int,
    grid_prompts: int,
) -> Generator[PhaseProgressed, None, Comparison]:
    """Sample and score both models, prompt by prompt, in batches of `batch_size` images.

    Yields after every batch of either model, so that a caller can leave; returns the comparison. Scores are those of
    the 8-bit images that are saved. Raises `AlignmentError` when a model draws NaN or a reward is not finite.
    """
    if not prompts or len(prompts) != len(seeds):
        raise ValueError(f"one or more prompts, each with its seeds: got {len(prompts)} prompts, {len(seeds)} of seeds")
    if PROMPT_FOLLOWING in rewards:
        raise ValueError(f"a reward cannot be named {PROMPT_FOLLOWING!r}: the report keeps the name for its judge")
    judges = dict(rewards) if prompt_following is None else {**rewards, PROMPT_FOLLOWING: prompt_following}
    seeds_per_prompt = len(seeds[0])
    shown = _spread(len(prompts), grid_prompts)
    base_tally = _Tally("base", base, judges, seeds_per_prompt, shown)
    policy_tally = _Tally("policy", policy, judges, seeds_per_prompt, shown)
    total, done = 2 * len(prompts) * seeds_per_prompt, 0
    for batch_prompts, batch_seeds in _batches(prompts, seeds, batch_size):
        for tally in (base_tally, policy_tally):
            tally.draw(batch_prompts, batch_seeds)
            done += len(batch_prompts)
            yield PhaseProgressed(phase="sampling", done=done, total=total, cached=0)
    return Comparison(tuple(prompts), tuple(map(tuple, seeds)), shown, base_tally.drawn(), policy_tally.drawn())


def _spread(num_prompts: int, num_shown: int) -> tuple[int, ...]:
    """Positions spread over the whole list: neighbours in a list of prompts are often alike."""
    num_shown = min(num_prompts, num_shown)
    return tuple(index * num_prompts // num_shown for index in range(num_shown))


def _batches(
    prompts: Sequence[str], seeds: Sequence[Sequence[int]], batch_size: int
) -> Iterator[tuple[list[str], list[int]]]:
    """(prompt, seed) in prompt-major order, `batch_size` at a time."""
    items = [(prompt, seed) for prompt, own in zip(prompts, seeds, strict=True) for seed in own]
    for start in range(0, len(items), batch_size):
        batch = items[start : start + batch_size]
        yield [prompt for prompt, _ in batch], [seed for _, seed in batch]


class _Tally:
    """One model's running results; holds the images of the prompt in progress and of the picture's prompts."""

    def __init__(
        self,
        model: str,
        sampler: Sampler,
        judges: Mapping[str, RewardModel],
        seeds_per_prompt: int,
        shown: tuple[int, ...],
    ) -> None:
        self._model = model
        self._sampler = sampler
        self._judges = judges
        self._seeds_per_prompt = seeds_per_prompt
        self._shown = shown
        self._num_closed = 0
        self._scores: dict[str, list[float]] = {name: [] for name in judges}
        self._open: list[ndarray] = []
        self._kept: list[ndarray] = []
        self._distances: list[float] = []

    @torch.no_grad()
    def draw(self, prompts: list[str], seeds: list[int]) -> None:
        """Sample one batch, score it, and close the prompts that it completes."""
        pixels = _to_pixels(self._sampler(prompts, seeds), prompts, self._model)
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        for name, judge in self._judges.items():
            self._scores[name] += judge(images, prompts).tolist()
        for image in pixels:
            self._open.append(image)
            if len(self._open) == self._seeds_per_prompt:
                self._close_prompt()

    def _close_prompt(self) -> None:
        images, self._open = np.stack(self._open), []
        if self._seeds_per_prompt > 1:
            self._distances.append(pairwise_distance(images))
        if self._num_closed in self._shown:
            self._kept.append(images)
        self._num_closed += 1

    def drawn(self) -> Drawn:
        shape = (-1, self._seeds_per_prompt)
        return Drawn(
            scores={name: np.array(scores).reshape(shape) for name, scores in self._scores.items()},
            distances=np.array(self._distances)[:, None] if self._distances else None,
            images=np.stack(self._kept),
        )


def _to_pixels(images: Images, prompts: list[str], model: str) -> Pixels:
    finite = images.isfinite().flatten(1).all(dim=1)
    if not finite.all():
        prompt = prompts[int((~finite).nonzero()[0].item())]
        raise AlignmentError(
            "images_not_finite",
            f"the {model} model drew NaN or infinite pixels for the prompt {prompt!r}",
            hint="bf16 or fp32 instead of fp16, or a lower learning rate",
        )
    return (255 * images.float()).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
