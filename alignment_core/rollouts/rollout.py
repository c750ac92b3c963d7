"""Trajectories of online methods: DDIM with noise, one seeded draw a (iteration, trajectory, step).

Steps are indexed from the noise: index 0 is the noisiest of T and index T-1 draws the image. Their timesteps are those that the
model's scheduler samples at: SD 1.x, T = 20: 951, 901, ..., 51, 1. Classifier-free guidance is here and nowhere else, so that sampling, policy and reference
cannot differ in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignment_core.diffusion.formulas import (
    PredictionType,
    Reduction,
    ddim_mean,
    ddim_sigma,
    predict_eps,
    predict_x0,
    step_log_prob,
)
from alignment_core.protocols import RewardModel
from alignment_core.seeds import generator_of, permutation_of
from alignment_core.shapes import Images, Latents, PerExample, Timesteps

SIGMA_FLOOR = 1e-3  # below it a log-probability is a division by nearly nothing
Indices = Int[Tensor, " batch"]
Predict = Callable[[Latents, Timesteps, dict[str, Tensor]], Latents]
Guided = Callable[[Latents, Timesteps], Latents]  # a prediction whose prompts are settled


# --- the grid ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DDIMGrid:
    """The T steps of a trajectory: float64 `[T]` coefficients, from noise to image, on the CPU."""

    kind: PredictionType
    timesteps: Int[Tensor, " T"]
    abar_t: Float[Tensor, " T"]
    abar_prev: Float[Tensor, " T"]
    sigma_t: Float[Tensor, " T"]

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def trainable(self) -> list[int]:
        """Indices of the steps that have a density: sigma_t of at least the floor."""
        return (self.sigma_t >= SIGMA_FLOOR).nonzero()[:, 0].tolist()

    def t(self, index: Indices, like: Tensor) -> Timesteps:
        """Training timesteps of the steps `index`."""
        return self.timesteps[index.cpu()].to(like.device)

    def sigma(self, index: Indices, like: Tensor) -> PerExample:
        """sigma_t of the steps `index`, in the type of `like`."""
        return self.sigma_t[index.cpu()].to(like)

    def x_0(self, x_t: Latents, prediction: Latents, index: Indices) -> Latents:
        """The image that the prediction stands for."""
        return predict_x0(self.kind, x_t, prediction, self.abar_t[index.cpu()].to(x_t))

    def eps(self, x_t: Latents, prediction: Latents, index: Indices) -> Latents:
        """The noise that the prediction stands for."""
        return predict_eps(self.kind, x_t, prediction, self.abar_t[index.cpu()].to(x_t))

    def mean(self, x_t: Latents, prediction: Latents, index: Indices) -> Latents:
        """mu of the step."""
        x_0, eps = self.x_0(x_t, prediction, index), self.eps(x_t, prediction, index)
        return ddim_mean(x_0, eps, self.abar_prev[index.cpu()].to(x_t), self.sigma(index, x_t))


def ddim_grid(
    kind: PredictionType, abar: Float[Tensor, " N"], timesteps: Sequence[int], *, eta: float, final_abar: float
) -> DDIMGrid:
    """The grid of these timesteps; `final_abar` is that of the image (SD: abar[0]).

    A step leads floor(N/T) timesteps down, as in diffusers, whatever the spacing: with linspace not quite to the next one.
    """
    at, wide = torch.tensor(list(timesteps)), abar.detach().cpu().double()
    prev = at - len(abar) // len(at)
    abar_t = wide[at]
    abar_prev = torch.where(prev >= 0, wide[prev.clamp(min=0)], torch.tensor(final_abar, dtype=torch.float64))
    return DDIMGrid(kind, at, abar_t, abar_prev, ddim_sigma(abar_t, abar_prev, eta))


# --- guidance ------------------------------------------------------------------------------------------------------


def guided(
    predict: Predict,
    x_t: Latents,
    timesteps: Timesteps,
    conditioning: dict[str, Tensor],
    empty: dict[str, Tensor],
    scale: float,
) -> Latents:
    """Classifier-free guidance: y_empty + scale (y_prompt - y_empty), in one forward; scale 1 is the prompt alone."""
    if scale == 1:
        return predict(x_t, timesteps, conditioning)
    both = {name: torch.cat([empty[name].to(value).expand_as(value), value]) for name, value in conditioning.items()}
    without, with_prompt = predict(torch.cat([x_t, x_t]), timesteps.repeat(2), both).chunk(2)
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
    grid: DDIMGrid, predict: Guided, x: Latents, noise: Callable[[int], Latents], *, first: int, last: int
) -> Walk:
    """Draw the steps `first` to `last` - 1 from `x` on. The log-probability is that of the state as it is stored."""
    drawn = Walk([], [])
    for index in range(first, last):
        at = index_of(index, x)
        mu, sigma = grid.mean(x, predict(x, grid.t(at, x)), at), grid.sigma(at, x)
        x = mu + sigma.reshape(-1, 1, 1, 1) * noise(index).to(x)
        drawn.states.append(x)
        drawn.log_probs.append(step_log_prob(x, mu, sigma))
    return drawn


@torch.no_grad()
def branch(
    grid: DDIMGrid, predict: Guided, x_t: Latents, z_0: Latents, z_1: Latents, *, index: int
) -> tuple[Latents, Latents]:
    """Two candidates for the next state from one x_t: one prediction, two draws."""
    at = index_of(index, x_t)
    mu, sigma = grid.mean(x_t, predict(x_t, grid.t(at, x_t)), at), grid.sigma(at, x_t).reshape(-1, 1, 1, 1)
    return mu + sigma * z_0.to(x_t), mu + sigma * z_1.to(x_t)


def log_prob(
    grid: DDIMGrid,
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
