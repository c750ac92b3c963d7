"""Trajectories of online methods: DDIM with noise, one seeded draw a (iteration, trajectory, step).

Steps are indexed from the noise: index 0 is the noisiest of T and index T-1 draws the image. Their timesteps are those that the
model's scheduler samples at: SD 1.x, T = 20: 951, 901, ..., 51, 1. Classifier-free guidance is here and nowhere else, so that sampling, policy and reference
cannot differ in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from alignment_core.diffusion.formulas import Reduction, step_log_prob
from alignment_core.diffusion.path import Grid, Indices
from alignment_core.protocols import RewardModel
from alignment_core.seeds import generator_of, permutation_of
from alignment_core.shapes import Images, Latents, PerExample, Times

Predict = Callable[[Latents, Times, dict[str, Tensor]], Latents]
Guided = Callable[[Latents, Times], Latents]  # a prediction whose prompts are settled


# --- guidance ------------------------------------------------------------------------------------------------------


def guided(
    predict: Predict,
    x_t: Latents,
    times: Times,
    conditioning: dict[str, Tensor],
    empty: dict[str, Tensor],
    scale: float,
) -> Latents:
    """Classifier-free guidance: y_empty + scale (y_prompt - y_empty), in one forward; scale 1 is the prompt alone."""
    if scale == 1:
        return predict(x_t, times, conditioning)
    both = {name: torch.cat([empty[name].to(value).expand_as(value), value]) for name, value in conditioning.items()}
    without, with_prompt = predict(torch.cat([x_t, x_t]), times.repeat(2), both).chunk(2)
    return without + scale * (with_prompt - without)


# --- drawing -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draws:
    """The noise of one iteration's trajectories: the same for the same seed, whatever the batch or the machine."""

    seed: int
    iteration: int
    shape: tuple[int, int, int]

    def start(self, trajectories: Sequence[int]) -> Latents:
        """x_T of each trajectory."""
        return torch.stack([self._normal(number, "start") for number in trajectories])

    def noise(self, trajectories: Sequence[int], index: int, branch: int = 0) -> Latents:
        """z of step `index` of each trajectory, in its `branch`."""
        return torch.stack([self._normal(number, index, branch) for number in trajectories])

    def _normal(self, *path: str | int) -> Tensor:
        return torch.randn(self.shape, generator=generator_of(self.seed, "rollout", self.iteration, *path))


def prompts_of_iteration(prompts: Sequence[str], num: int, seed: int, iteration: int) -> list[str]:
    """The next `num` prompts; epochs are shuffled anew and run into each other."""
    size = len(prompts)
    places = range(iteration * num, (iteration + 1) * num)
    return [prompts[permutation_of(size, seed, "prompts", place // size)[place % size]] for place in places]


def index_of(index: int, like: Tensor) -> Indices:
    """`index` for every example of a batch."""
    return torch.full((len(like),), index)


@dataclass(frozen=True)
class Walk:
    """The state after each step that was drawn, and the log-probability of that draw (mean over the latent)."""

    states: list[Latents]
    log_probs: list[PerExample]


@torch.no_grad()
def walk(
    grid: Grid,
    predict: Guided,
    x: Latents,
    noise: Callable[[int], Latents],
    *,
    first: int,
    last: int,
    prediction: Latents | None = None,
) -> Walk:
    """Draw the steps `first` to `last` - 1 from `x` on. The log-probability is that of the state as it is stored.

    `prediction` is that of the first step, where it was asked already.
    """
    drawn = Walk([], [])
    for index in range(first, last):
        at = index_of(index, x)
        yhat = predict(x, grid.time(at, x)) if prediction is None or index > first else prediction
        mu, sigma = grid.mean(x, yhat, at), grid.sigma(at, x)
        x = mu + sigma.reshape(-1, 1, 1, 1) * noise(index).to(x)
        drawn.states.append(x)
        drawn.log_probs.append(step_log_prob(x, mu, sigma))
    return drawn


@torch.no_grad()
def branch(
    grid: Grid, prediction: Latents, x_t: Latents, z_0: Latents, z_1: Latents, *, index: int
) -> tuple[Latents, Latents]:
    """Two candidates for the next state from one x_t: one prediction, two draws."""
    at = index_of(index, x_t)
    mu, sigma = grid.mean(x_t, prediction, at), grid.sigma(at, x_t).reshape(-1, 1, 1, 1)
    return mu + sigma * z_0.to(x_t), mu + sigma * z_1.to(x_t)


def log_prob(
    grid: Grid,
    x_prev: Latents,
    x_t: Latents,
    prediction: Latents,
    index: Indices,
    reduction: Reduction = "mean",
) -> PerExample:
    """log pi(x_prev | x_t) under the step that the prediction gives."""
    return step_log_prob(x_prev, grid.mean(x_t, prediction, index), grid.sigma(index, x_t), reduction)


# --- judging -------------------------------------------------------------------------------------------------------


def scores(rewards: Sequence[RewardModel], images: Images, prompts: Sequence[str]) -> Float[Tensor, "rewards batch"]:
    """What each reward says of each image."""
    return torch.stack([reward(images, prompts).float() for reward in rewards])


def preference(
    scores_0: Float[Tensor, "rewards batch"], scores_1: Float[Tensor, "rewards batch"]
) -> Float[Tensor, " batch"]:
    """1 where image 0 dominates, -1 where image 1 does, 0 for a tie: Pareto dominance (all >=, one >).

    Scores that are no numbers decide nothing.
    """
    gap = scores_0 - scores_1
    wins, loses = (gap >= 0).all(0) & (gap > 0).any(0), (gap <= 0).all(0) & (gap < 0).any(0)
    finite = (scores_0.isfinite() & scores_1.isfinite()).all(0)
    return torch.where(finite, wins.float() - loses.float(), torch.zeros_like(gap[0]))
