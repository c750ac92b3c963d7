"""The variance-preserving path of SD 1.x, SD 2.x and SDXL over N discrete timesteps, sampled by DDIM with noise.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps. The prediction is epsilon or v.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
from jaxtyping import Float, Int
from torch import Tensor

from alignment_core.diffusion.formulas import (
    TimestepSpacing,
    VPPrediction,
    add_noise,
    ddim_mean,
    ddim_sigma,
    ddim_timesteps,
    predict_eps,
    predict_x0,
    snr,
    training_target,
)
from alignment_core.diffusion.path import SIGMA_FLOOR, Indices
from alignment_core.shapes import Latents, PerExample, Timesteps


@dataclass(frozen=True)
class DiscreteVP:
    """`Path`; `final_abar` is that of the image (SD: abar[0]), `spacing` and `offset` make the grids (arXiv 2305.08891)."""

    prediction_type: VPPrediction
    abar: Float[Tensor, " N"]
    spacing: TimestepSpacing = "leading"
    offset: int = 1
    final_abar: float = 1.0

    @property
    def num_timesteps(self) -> int:
        return len(self.abar)

    @property
    def snr(self) -> Float[Tensor, " N"]:
        return snr(self.abar.cpu().double())

    def time(self, t: Timesteps) -> Timesteps:
        return t

    def noisy(self, x_0: Latents, eps: Latents, t: Timesteps) -> Latents:
        return add_noise(x_0, eps, self.abar[t])

    def target(self, x_0: Latents, eps: Latents, t: Timesteps) -> Latents:
        return training_target(self.prediction_type, x_0, eps, self.abar[t])

    def x_0(self, x_t: Latents, prediction: Latents, t: Timesteps) -> Latents:
        return predict_x0(self.prediction_type, x_t, prediction, self.abar[t])

    def eps(self, x_t: Latents, prediction: Latents, t: Timesteps) -> Latents:
        return predict_eps(self.prediction_type, x_t, prediction, self.abar[t])

    def eps_scale(self, t: Timesteps) -> PerExample:
        """1 for epsilon; abar_t for v, since eps = sqrt(abar) v + sqrt(1 - abar) x_t."""
        return _eps_scale(self.prediction_type, self.abar[t])

    def sampling_timesteps(self, num_steps: int) -> list[int]:
        """The timesteps of `num_steps` sampling steps, noisiest first; raises `ValueError` where there are no such steps."""
        return ddim_timesteps(self.num_timesteps, num_steps, spacing=self.spacing, offset=self.offset)

    def grid(self, num_steps: int, eta: float) -> "DDIMGrid":
        at = self.sampling_timesteps(num_steps)
        return ddim_grid(self.prediction_type, self.abar, at, eta=eta, final_abar=self.final_abar)


def _eps_scale(kind: VPPrediction, abar_t: PerExample) -> PerExample:
    match kind:
        case "epsilon":
            return torch.ones_like(abar_t)
        case "v_prediction":
            return abar_t
        case _:
            assert_never(kind)


@dataclass(frozen=True)
class DDIMGrid:
    """`Grid` of DDIM with noise: float64 `[T]` coefficients, from noise to image, on the CPU."""

    kind: VPPrediction
    timesteps: Int[Tensor, " T"]
    abar_t: Float[Tensor, " T"]
    abar_prev: Float[Tensor, " T"]
    sigma_t: Float[Tensor, " T"]

    def __len__(self) -> int:
        return len(self.timesteps)

    @property
    def trainable(self) -> list[int]:
        return (self.sigma_t >= SIGMA_FLOOR).nonzero()[:, 0].tolist()

    def level(self, index: Indices, like: Tensor) -> Timesteps:
        return self.timesteps[index.cpu()].to(like.device)

    def time(self, index: Indices, like: Tensor) -> Timesteps:
        return self.level(index, like)

    def sigma(self, index: Indices, like: Tensor) -> PerExample:
        return self.sigma_t[index.cpu()].to(like)

    def x_0(self, x_t: Latents, prediction: Latents, index: Indices) -> Latents:
        return predict_x0(self.kind, x_t, prediction, self._abar(index, x_t))

    def eps(self, x_t: Latents, prediction: Latents, index: Indices) -> Latents:
        return predict_eps(self.kind, x_t, prediction, self._abar(index, x_t))

    def eps_scale(self, index: Indices, like: Tensor) -> PerExample:
        return _eps_scale(self.kind, self._abar(index, like))

    def x_0_of_eps(self, x_t: Latents, eps: Latents, index: Indices) -> Latents:
        return predict_x0("epsilon", x_t, eps, self._abar(index, x_t))

    def mean(self, x_t: Latents, prediction: Latents, index: Indices) -> Latents:
        x_0, eps = self.x_0(x_t, prediction, index), self.eps(x_t, prediction, index)
        return ddim_mean(x_0, eps, self.abar_prev[index.cpu()].to(x_t), self.sigma(index, x_t))

    def _abar(self, index: Indices, like: Tensor) -> PerExample:
        return self.abar_t[index.cpu()].to(like)


def ddim_grid(
    kind: VPPrediction, abar: Float[Tensor, " N"], timesteps: Sequence[int], *, eta: float, final_abar: float
) -> DDIMGrid:
    """The grid of these timesteps; `final_abar` is that of the image (SD: abar[0]).

    A step leads floor(N/T) timesteps down, as in diffusers, whatever the spacing: with linspace not quite to the next one.
    """
    at, wide = torch.tensor(list(timesteps)), abar.detach().cpu().double()
    prev = at - len(abar) // len(at)
    abar_t = wide[at]
    abar_prev = torch.where(prev >= 0, wide[prev.clamp(min=0)], torch.tensor(final_abar, dtype=torch.float64))
    return DDIMGrid(kind, at, abar_t, abar_prev, ddim_sigma(abar_t, abar_prev, eta))
