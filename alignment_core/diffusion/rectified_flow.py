"""Rectified flow: noise mixed in along straight lines, and a network that says their direction.

x_s = (1 - s) x_0 + s eps,  v = eps - x_0,  x_0 = x_s - s v,  eps = x_s + (1 - s) v,  SNR = ((1 - s)/s)^2.

s is the noise level, from nearly 0 (an image) to 1 (noise). Liu et al. (arXiv 2209.03003); Esser et al. (arXiv 2403.03206) for the
shift of the levels; Flow-GRPO (arXiv 2505.05470) for the steps with noise. Sampling without noise is Euler's method, as diffusers'
`FlowMatchEulerDiscreteScheduler` has it.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignment_core.diffusion.path import SIGMA_FLOOR, Indices
from alignment_core.shapes import Latents, PerExample, Times, Timesteps

Levels = Float[Tensor, " levels"]
Spacing = Literal["table", "even"]
SNR_LEVELS = (0.001, 0.98)  # at s = 1 nothing is left of the image, and 1/SNR has no bound


def shifted(s: Levels, shift: float) -> Levels:
    """shift s / (1 + (shift - 1) s): more steps where there is more noise, for more pixels."""
    return shift * s / (1 + (shift - 1) * s)


def _over(values: PerExample, like: Latents) -> Tensor:
    return values.to(like).reshape(-1, *[1] * (like.ndim - 1))


@dataclass(frozen=True)
class RectifiedFlow:
    """`shift` is that of the levels that the model is trained at, `sampling_shift` that of a sampler's steps.

    A sampler's steps are shifted once more, as in diffusers: from the last level of the table to the first (`table`), or from 1 in
    equal parts (`even`).
    """

    num_timesteps: int
    shift: float
    sampling_shift: float
    spacing: Spacing = "table"
    prediction_type: Literal["flow"] = "flow"

    @cached_property
    def levels(self) -> Levels:
        """s of each timestep, float64 on the CPU, the cleanest first."""
        return shifted(torch.arange(1, self.num_timesteps + 1, dtype=torch.float64) / self.num_timesteps, self.shift)

    @property
    def snr(self) -> Levels:
        """((1 - s)/s)^2 of each timestep, within the bounds of `SNR_LEVELS`."""
        s = self.levels.clamp(*SNR_LEVELS)
        return ((1 - s) / s).square()

    def level(self, t: Timesteps) -> PerExample:
        """s of the timesteps `t`, float64."""
        return self.levels.to(t.device)[t]

    def time(self, t: Timesteps) -> Times:
        """What the network is told: s N, float32."""
        return (self.level(t) * self.num_timesteps).float()

    def noisy(self, x_0: Latents, eps: Latents, t: Timesteps) -> Latents:
        """x_s = (1 - s) x_0 + s eps."""
        s = self.level(t)
        return _over(1 - s, x_0) * x_0 + _over(s, x_0) * eps

    def target(self, x_0: Latents, eps: Latents, t: Timesteps) -> Latents:
        """v = eps - x_0."""
        return eps - x_0

    def x_0(self, x_t: Latents, prediction: Latents, t: Timesteps) -> Latents:
        """The image that a prediction stands for."""
        return x_t - _over(self.level(t), x_t) * prediction

    def eps(self, x_t: Latents, prediction: Latents, t: Timesteps) -> Latents:
        """The noise that a prediction stands for."""
        return x_t + _over(1 - self.level(t), x_t) * prediction

    def eps_scale(self, t: Timesteps) -> PerExample:
        """(1 - s)^2, by which an error in v is one in eps at the same x_s."""
        return (1 - self.level(t)).square().float()

    def grid(self, num_steps: int, eta: float) -> "FlowGrid":
        """Raises `ValueError` where there are no such steps."""
        if not 1 <= num_steps <= self.num_timesteps:
            raise ValueError(f"{num_steps} sampling steps, and the model has {self.num_timesteps} timesteps")
        s = shifted(self._unshifted(num_steps), self.sampling_shift)
        timesteps = (self.levels - s[:, None]).abs().argmin(dim=1)
        return FlowGrid(timesteps, s, torch.cat([s[1:], s.new_zeros(1)]), eta, self.num_timesteps)

    def _unshifted(self, num_steps: int) -> Levels:
        match self.spacing:
            case "table":
                return torch.linspace(float(self.levels[-1]), float(self.levels[0]), num_steps, dtype=torch.float64)
            case "even":
                return 1 - torch.arange(num_steps, dtype=torch.float64) / num_steps
            case _:
                assert_never(self.spacing)


@dataclass(frozen=True)
class FlowGrid:
    """The T steps of a trajectory, from s to s_next, float64 `[T]` on the CPU, from noise to image.

    With g = eta sqrt(s/(1 - s)) and dt = s_next - s, a step draws from the normal distribution of mean
    x (1 + g^2/(2s) dt) + v (1 + g^2 (1 - s)/(2s)) dt and standard deviation g sqrt(-dt); eta 0 is Euler's step x + v dt. In the
    1 - s of g alone, and where the image is divided by it, s = 1 counts as the second level of the grid.
    """

    timesteps: Int[Tensor, " T"]
    s: Float[Tensor, " T"]
    s_next: Float[Tensor, " T"]
    eta: float
    num_timesteps: int

    def __len__(self) -> int:
        return len(self.s)

    @property
    def trainable(self) -> list[int]:
        """Indices of the steps that have a density: sigma_t of at least the floor, which the last may be below."""
        return (self.sigma_t >= SIGMA_FLOOR).nonzero()[:, 0].tolist()

    @property
    def _signal(self) -> Float[Tensor, " T"]:
        return 1 - torch.where(self.s < 1, self.s, self.s_next)

    @property
    def _g(self) -> Float[Tensor, " T"]:
        return self.eta * (self.s / self._signal).sqrt()

    @property
    def sigma_t(self) -> Float[Tensor, " T"]:
        """The standard deviation of each step's noise."""
        return self._g * (self.s - self.s_next).sqrt()

    def level(self, index: Indices, like: Tensor) -> Timesteps:
        """The timestep whose noise level is next to that of the steps `index`."""
        return self.timesteps[index.cpu()].to(like.device)

    def time(self, index: Indices, like: Tensor) -> Times:
        """What the network is told at the steps `index`: s N, float32."""
        return (self.s[index.cpu()] * self.num_timesteps).to(like.device, torch.float32)

    def sigma(self, index: Indices, like: Tensor) -> PerExample:
        """sigma_t of the steps `index`, in the type of `like`."""
        return self.sigma_t[index.cpu()].to(like)

    def x_0(self, x_t: Latents, prediction: Latents, index: Indices) -> Latents:
        """The image that the prediction stands for."""
        return x_t - _over(self.s[index.cpu()], x_t) * prediction

    def eps(self, x_t: Latents, prediction: Latents, index: Indices) -> Latents:
        """The noise that the prediction stands for."""
        return x_t + _over(1 - self.s[index.cpu()], x_t) * prediction

    def eps_scale(self, index: Indices, like: Tensor) -> PerExample:
        """(1 - s)^2 at the steps `index`."""
        return (1 - self.s[index.cpu()]).square().to(like)

    def x_0_of_eps(self, x_t: Latents, eps: Latents, index: Indices) -> Latents:
        """The image if the noise is held fixed: (x_s - s eps)/(1 - s)."""
        at = index.cpu()
        return (x_t - _over(self.s[at], x_t) * eps) / _over(self._signal[at], x_t)

    def mean(self, x_t: Latents, prediction: Latents, index: Indices) -> Latents:
        """mu of the step."""
        at = index.cpu()
        s, dt = self.s[at], (self.s_next - self.s)[at]
        pull = self._g[at].square() / (2 * s)
        return _over(1 + pull * dt, x_t) * x_t + _over((1 + pull * (1 - s)) * dt, x_t) * prediction
