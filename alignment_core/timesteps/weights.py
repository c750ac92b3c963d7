"""Timestep-aware training: a sampler over noise bins, lambda(t) inside the sigmoid and w(t) on the loss, as pure functions.

Bins are numbered from the noise, k = 0 noisiest: bin(t) = K - 1 - floor(t K / N). Kang et al., "Rethinking Direct Preference
Optimization in Diffusion Models", arXiv 2505.18736; `docs/methods.md` says which choices are ours.
"""

from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

PerBin = Float[Tensor, " bins"]
PerTimestep = Float[Tensor, " N"]

VARIANCE_FLOOR = 1e-12
MAX_CORRECTION = 50.0  # a rare draw of a larger weight would be all of its step (truncated as by Ionides 2008)


def bin_of(timesteps: Int[Tensor, " batch"], num_bins: int, num_timesteps: int) -> Int[Tensor, " batch"]:
    """The bin of each timestep, 0 noisiest."""
    return num_bins - 1 - timesteps * num_bins // num_timesteps


def bounds_of(number: int, num_bins: int, num_timesteps: int) -> tuple[int, int]:
    """First and last timestep of a bin."""
    from_clean = num_bins - 1 - number
    return -(-from_clean * num_timesteps // num_bins), -(-(from_clean + 1) * num_timesteps // num_bins) - 1


# --- the sampler ---------------------------------------------------------------------------------------------------


def discounted_probabilities(gamma: float, num_bins: int) -> PerBin:
    """p_k = gamma^k / sum_j gamma^j, float64."""
    powers = torch.tensor(gamma, dtype=torch.float64) ** torch.arange(num_bins)
    return powers / powers.sum()


def sample_in_bins(probabilities: PerBin, num_timesteps: int, num: int, generator: Generator) -> Int[Tensor, " batch"]:
    """Bins from the categorical, then t uniform inside the bin."""
    num_bins = len(probabilities)
    bins = torch.multinomial(probabilities, num, replacement=True, generator=generator)
    bounds = torch.tensor([bounds_of(number, num_bins, num_timesteps) for number in range(num_bins)])
    first, last = bounds[bins].unbind(dim=1)
    place = torch.rand(num, generator=generator, dtype=torch.float64)
    return torch.minimum(first + (place * (last - first + 1)).long(), last)


def logit_normal_density(mean: float, std: float, num_timesteps: int) -> PerTimestep:
    """p_t = Phi((logit((t+1)/N) - mean)/std) - Phi((logit(t/N) - mean)/std), float64: where sigmoid(mean + std z) falls."""
    edges = (torch.logit(torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps) - mean) / std
    # the upper half by its tail, where differences of numbers close to 1 would lose all digits
    low, high = torch.special.ndtr(edges), torch.special.ndtr(-edges)
    return torch.where(edges[:-1] < 0, low.diff(), -high.diff())


def probabilities_of_bins(density: PerTimestep, num_bins: int) -> PerBin:
    """What a density over the timesteps gives each bin, noisiest first."""
    bins = bin_of(torch.arange(len(density)), num_bins, len(density))
    return torch.bincount(bins, weights=density, minlength=num_bins)


def importance_correction(
    probabilities: Float[Tensor, " items"], shares: Float[Tensor, " items"]
) -> Float[Tensor, " items"]:
    """share_k / p_k over what is drawn, at most `MAX_CORRECTION` and then averaging 1 under the sampler; 1 elsewhere.

    With equal shares of K bins that are all drawn it is 1/(K p_k).
    """
    drawn = probabilities > 0
    ratio = torch.where(drawn, shares / probabilities, torch.zeros_like(shares)).clamp(max=MAX_CORRECTION)
    return torch.where(drawn, mean1(ratio, probabilities), torch.ones_like(ratio))


# --- lambda(t) -----------------------------------------------------------------------------------------------------


def minmax_inv_sqrt_snr(snr: PerTimestep) -> PerTimestep:
    """lambda(t) = 1 + (q - q_min) / (q_max - q_min), q = 1/sqrt(SNR(t)), float64; from 1 (clean) to 2 (noisy).

    Where the SNR is zero (zero-terminal-SNR schedules) q is that of the noisiest t whose SNR is not.
    """
    q = 1 / snr.sqrt()
    q = q.clamp(max=float(q[q.isfinite()].max()))
    return 1 + (q - q.min()) / (q.max() - q.min())


# --- w(t) ----------------------------------------------------------------------------------------------------------


def variance_weights(variances: PerBin, power: float, direction: Literal["inverse", "direct"]) -> PerBin:
    """(v + 1e-12)^-p, or ^p for `direct`; not normalised."""
    match direction:
        case "inverse":
            return (variances + VARIANCE_FLOOR) ** -power
        case "direct":
            return (variances + VARIANCE_FLOOR) ** power
        case _:
            assert_never(direction)


def mean1(weights: PerBin, probabilities: PerBin) -> PerBin:
    """w / sum_k p_k w_k: weights that average 1 under the sampler."""
    return weights / (probabilities * weights).sum()


def sum1(weights: PerBin) -> PerBin:
    """w / sum_k w_k."""
    return weights / weights.sum()


def clip_mean1(weights: PerBin, probabilities: PerBin, low: float, high: float) -> PerBin:
    """`mean1`, clipped, and `mean1` again; values may therefore end slightly outside the bounds."""
    return mean1(mean1(weights, probabilities).clamp(low, high), probabilities)


@dataclass
class RunningVariance:
    """Exponentially weighted variance of a signal in each bin, float64 on the CPU.

    c <- rho c + (1-rho), s1 <- rho s1 + (1-rho) mean(x), s2 <- rho s2 + (1-rho) mean(x^2), in steps where the bin received
    samples; v = s2/c - (s1/c)^2.
    """

    rho: float
    weight: PerBin
    first: PerBin
    second: PerBin
    num_samples: Int[Tensor, " bins"]

    @classmethod
    def of(cls, num_bins: int, rho: float) -> "RunningVariance":
        """No samples seen."""
        zero = torch.zeros(num_bins, dtype=torch.float64)
        return cls(rho, zero, zero.clone(), zero.clone(), torch.zeros(num_bins, dtype=torch.int64))

    def add(self, bins: Int[Tensor, " batch"], signal: Float[Tensor, " batch"]) -> None:
        """One optimiser step's samples, of all processes."""
        num_bins, signal = len(self.weight), signal.double()
        count = torch.bincount(bins, minlength=num_bins)
        seen, divisor = count > 0, count.clamp(min=1)
        mean = torch.bincount(bins, weights=signal, minlength=num_bins) / divisor
        mean_square = torch.bincount(bins, weights=signal.square(), minlength=num_bins) / divisor
        self.weight = self._moved(self.weight, torch.ones_like(mean), seen)
        self.first = self._moved(self.first, mean, seen)
        self.second = self._moved(self.second, mean_square, seen)
        self.num_samples = self.num_samples + count

    def _moved(self, old: PerBin, new: PerBin, seen: Bool[Tensor, " bins"]) -> PerBin:
        return torch.where(seen, self.rho * old + (1 - self.rho) * new, old)

    def variances(self) -> PerBin:
        """v_k; 0 for bins without samples."""
        weight = self.weight.clamp(min=torch.finfo(torch.float64).tiny)
        return (self.second / weight - (self.first / weight).square()).clamp(min=0)
