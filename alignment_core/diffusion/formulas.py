"""Diffusion in the papers' symbols, as pure functions.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps,  SNR(t) = abar_t / (1 - abar_t).

`abar_t` holds one value per example, `[B]`; every other argument is `[B, ...]`. Ho et al. (arXiv 2006.11239), Salimans and
Ho (arXiv 2202.00512) for v-prediction.
"""

import math
from typing import Literal, assert_never

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

VPPrediction = Literal["epsilon", "v_prediction"]
PredictionType = VPPrediction | Literal["flow"]

Batched = Float[Tensor, "batch ..."]
PerExample = Float[Tensor, " batch"]


def scaled_linear_abar(num_timesteps: int = 1000, start: float = 0.00085, end: float = 0.012) -> Float[Tensor, " N"]:
    """abar of the schedule of SD 1.x and SDXL, float64: betas = linspace(sqrt(start), sqrt(end), N)^2."""
    betas = torch.linspace(start**0.5, end**0.5, num_timesteps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, dim=0)


def _over(values: PerExample, like: Batched) -> Tensor:
    return values.reshape(-1, *[1] * (like.ndim - 1))


def add_noise(x_0: Batched, eps: Batched, abar_t: PerExample) -> Batched:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps."""
    return _over(abar_t.sqrt(), x_0) * x_0 + _over((1 - abar_t).sqrt(), x_0) * eps


def velocity(x_0: Batched, eps: Batched, abar_t: PerExample) -> Batched:
    """v = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0."""
    return _over(abar_t.sqrt(), x_0) * eps - _over((1 - abar_t).sqrt(), x_0) * x_0


def snr(abar_t: PerExample) -> PerExample:
    """abar_t / (1 - abar_t)."""
    return abar_t / (1 - abar_t)


def training_target(kind: VPPrediction, x_0: Batched, eps: Batched, abar_t: PerExample) -> Batched:
    """What the network is asked to predict: eps, or v."""
    match kind:
        case "epsilon":
            return eps
        case "v_prediction":
            return velocity(x_0, eps, abar_t)
        case _:
            assert_never(kind)


def predict_x0(kind: VPPrediction, x_t: Batched, prediction: Batched, abar_t: PerExample) -> Batched:
    """The x_0 that a prediction stands for."""
    signal, noise = _over(abar_t.sqrt(), x_t), _over((1 - abar_t).sqrt(), x_t)
    match kind:
        case "epsilon":
            return (x_t - noise * prediction) / signal
        case "v_prediction":
            return signal * x_t - noise * prediction
        case _:
            assert_never(kind)


def regression_error(prediction: Batched, target: Batched) -> PerExample:
    """mean((prediction - target)^2) over every axis but the first, accumulated in float32 (or float64 if given that).

    Half precision will not do: at an error of 0.1 its spacing is 6.1e-5, or 0.15 in the logit at beta 5000.
    """
    wide = torch.promote_types(prediction.dtype, torch.float32)
    return (prediction.to(wide) - target.to(wide)).square().flatten(1).mean(dim=1)


# --- sampling with noise (DDIM, arXiv 2010.02502) ------------------------------------------------------------------


def predict_eps(kind: VPPrediction, x_t: Batched, prediction: Batched, abar_t: PerExample) -> Batched:
    """The noise that a prediction stands for."""
    match kind:
        case "epsilon":
            return prediction
        case "v_prediction":
            return _over(abar_t.sqrt(), x_t) * prediction + _over((1 - abar_t).sqrt(), x_t) * x_t
        case _:
            assert_never(kind)


Reduction = Literal["mean", "sum"]
TimestepSpacing = Literal["leading", "trailing", "linspace"]


def ddim_timesteps(num_timesteps: int, num_steps: int, *, spacing: TimestepSpacing, offset: int) -> list[int]:
    """The T timesteps of a trajectory out of N, noisiest first (arXiv 2305.08891, table 2), as diffusers rounds them.

    leading: i floor(N/T) + offset; trailing: round(N - i N/T) - 1; linspace: from N-1 to 0. Raises `ValueError` where they
    are not T timesteps of the N: diffusers' trailing grid has one too many for some T, and an offset may lead past the last.
    """
    if not 1 <= num_steps <= num_timesteps:
        raise ValueError(f"{num_steps} sampling steps, and the model has {num_timesteps} timesteps")
    match spacing:
        case "leading":
            found = np.arange(num_steps)[::-1] * (num_timesteps // num_steps) + offset
        case "trailing":
            found = np.round(np.arange(num_timesteps, 0, -num_timesteps / num_steps)) - 1
        case "linspace":
            found = np.linspace(0, num_timesteps - 1, num_steps).round()[::-1]
        case _:
            assert_never(spacing)
    if len(found) != num_steps or found.min() < 0 or found.max() >= num_timesteps:
        raise ValueError(f"{num_steps} sampling steps of spacing {spacing!r} do not fit into {num_timesteps} timesteps")
    return found.astype(int).tolist()


def ddim_sigma(abar_t: PerExample, abar_prev: PerExample, eta: float) -> PerExample:
    """sigma_t = eta sqrt((1 - abar_prev)/(1 - abar_t) (1 - abar_t/abar_prev))."""
    return eta * ((1 - abar_prev) / (1 - abar_t) * (1 - abar_t / abar_prev)).sqrt()


def ddim_mean(x_0: Batched, eps: Batched, abar_prev: PerExample, sigma_t: PerExample) -> Batched:
    """mu = sqrt(abar_prev) x_0 + sqrt(1 - abar_prev - sigma_t^2) eps; the step is x_prev = mu + sigma_t z."""
    towards_noise = (1 - abar_prev - sigma_t.square()).clamp(min=0).sqrt()
    return _over(abar_prev.sqrt(), x_0) * x_0 + _over(towards_noise, x_0) * eps


def step_log_prob(x_prev: Batched, mu: Batched, sigma_t: PerExample, reduction: Reduction = "mean") -> PerExample:
    """log N(x_prev; mu, sigma_t^2) over every axis but the first; `mean` is the convention of the online methods.

    A sum overflows once it is a ratio: 1.01 per dimension is 1.01^16384 = 6e70. `x_prev` is a constant.
    """
    wide = torch.promote_types(mu.dtype, torch.float32)
    sigma = _over(sigma_t.to(wide), mu)
    z = (x_prev.detach().to(wide) - mu.to(wide)) / sigma
    each = (-0.5 * z.square() - sigma.log() - 0.5 * math.log(2 * math.pi)).flatten(1)
    return reduced(each, reduction)


def reduced(values: Float[Tensor, "batch latent"], reduction: Reduction) -> PerExample:
    """The mean or the sum of each example's values."""
    match reduction:
        case "mean":
            return values.mean(dim=1)
        case "sum":
            return values.sum(dim=1)
        case _:
            assert_never(reduction)


def beta_of_means(beta: float, latents: Batched, reduction: Reduction) -> float:
    """What beta is where values are means over the latent, which is what a penalty is."""
    match reduction:
        case "mean":
            return beta
        case "sum":
            return beta * latents[0].numel()
        case _:
            assert_never(reduction)
