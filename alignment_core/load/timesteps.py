"""From a spec to which timesteps are drawn, and how much each counts."""

from typing import Protocol, assert_never, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from alignment_core.diffusion.path import Grid, Path
from alignment_core.errors import ModelError
from alignment_core.protocols import TimestepStrategy
from alignment_core.rollouts.setup import RolloutSetup
from alignment_core.shapes import PerStep
from alignment_core.spec.timesteps import (
    ConstantScale,
    ConstantWeight,
    DiscountedSampler,
    LogitNormalSampler,
    MinMaxScale,
    RewardScaleSpec,
    SamplerSpec,
    TableSampler,
    TableScale,
    TableWeight,
    TimestepPreset,
    TimestepSpec,
    UniformSampler,
    VarianceWeight,
)
from alignment_core.spec.timesteps import TimestepAware as TimestepAwareSpec
from alignment_core.spec.timesteps import UniformTimesteps as UniformTimestepsSpec
from alignment_core.timesteps.strategies import TimestepAware, UniformTimesteps, VarianceWeights
from alignment_core.timesteps.weights import (
    PerBin,
    PerTimestep,
    RunningVariance,
    bin_of,
    discounted_probabilities,
    importance_correction,
    logit_normal_density,
    minmax_inv_sqrt_snr,
)


@runtime_checkable
class Stepwise(Protocol):
    """An online method, which trains on steps of its own sampler."""

    @property
    def setup(self) -> RolloutSetup: ...

    def trained_share(self, wanted: PerStep | None) -> PerStep:
        """The share that each step has in what is trained, where `wanted` says how much each step is."""
        ...


def build_timesteps(timesteps: TimestepSpec, path: Path, online: Stepwise | None = None) -> TimestepStrategy:
    """The strategy for an offline method, or for the steps of an online one.

    Raises `ModelError` when the model has fewer timesteps than the spec has bins.
    """
    match timesteps:
        case UniformTimestepsSpec():
            return UniformTimesteps(path.num_timesteps)
        case TimestepPreset():
            raise AssertionError("the spec is resolved")
        case TimestepAwareSpec():
            return _timestep_aware(timesteps, path, online)
        case _:
            assert_never(timesteps)


def _timestep_aware(spec: TimestepAwareSpec, path: Path, online: Stepwise | None) -> TimestepAware:
    if spec.num_bins > path.num_timesteps:
        raise ModelError(
            "too_many_bins", f"timesteps.num_bins is {spec.num_bins}, and the model has {path.num_timesteps} timesteps"
        )
    weight = spec.loss_weight
    learnt = _variance_weights(weight, spec.num_bins) if isinstance(weight, VarianceWeight) else None
    against = weight.stat_against if isinstance(weight, VarianceWeight) else None
    bins = bin_of(torch.arange(path.num_timesteps), spec.num_bins, path.num_timesteps)
    fixed = _fixed_weights(spec)[bins]
    if online is None:
        probabilities, wanted = _probabilities(spec.sampler, spec.num_bins, path.num_timesteps), None
        density = _density(probabilities, path.num_timesteps)
        fixed = fixed * _correction(spec.sampler, density, bins)
    else:
        probabilities, grid = None, online.setup.grid
        wanted = _step_probabilities(spec.sampler, len(grid))
        share = online.trained_share(wanted)
        density = torch.zeros(path.num_timesteps, dtype=torch.float64).index_add(0, grid.timesteps, share.double())
        fixed[grid.timesteps] *= _correction_of_steps(spec.sampler, share, grid)
    return TimestepAware(
        num_timesteps=path.num_timesteps,
        num_bins=spec.num_bins,
        probabilities=probabilities,
        density=density,
        step_probabilities=wanted,
        scale=_scale(spec.reward_scale, spec.num_bins, path),
        fixed_weights=fixed,
        learnt_weights=learnt,
        signal_against=against or "reference",
    )


def _probabilities(sampler: SamplerSpec, num_bins: int, num_timesteps: int) -> PerBin | None:
    """Of the bins, or of every timestep where the sampler knows each; noisiest first."""
    match sampler:
        case UniformSampler():
            return None
        case DiscountedSampler(gamma=gamma):
            return discounted_probabilities(gamma, num_bins)
        case TableSampler(probabilities=probabilities):
            table = torch.tensor(probabilities, dtype=torch.float64)
            return table / table.sum()
        case LogitNormalSampler(mean=mean, std=std):
            return logit_normal_density(mean, std, num_timesteps).flip(0)
        case _:
            assert_never(sampler)


def _step_probabilities(sampler: SamplerSpec, num_steps: int) -> PerStep | None:
    """How much each of an online method's steps is wanted, noisiest first: gamma^k, or a table spread over the steps."""
    match sampler:
        case UniformSampler():
            return None
        case DiscountedSampler(gamma=gamma):
            return discounted_probabilities(gamma, num_steps)
        case TableSampler():
            return torch.tensor(sampler.over_steps(num_steps), dtype=torch.float64)
        case LogitNormalSampler(mean=mean, std=std):
            return logit_normal_density(mean, std, num_steps).flip(0)
        case _:
            assert_never(sampler)


def _scale(scale: RewardScaleSpec, num_bins: int, path: Path) -> PerTimestep:
    match scale:
        case ConstantScale(value=value):
            return torch.full((path.num_timesteps,), value, dtype=torch.float64)
        case MinMaxScale():
            return minmax_inv_sqrt_snr(path.snr)
        case TableScale(values=values):
            bins = bin_of(torch.arange(path.num_timesteps), num_bins, path.num_timesteps)
            return torch.tensor(values, dtype=torch.float64)[bins]
        case _:
            assert_never(scale)


def _fixed_weights(spec: TimestepAwareSpec) -> PerBin:
    """The weights that no statistic changes."""
    match spec.loss_weight:
        case ConstantWeight() | VarianceWeight():
            return torch.ones(spec.num_bins, dtype=torch.float64)
        case TableWeight(values=values):
            return torch.tensor(values, dtype=torch.float64)
        case _:
            assert_never(spec.loss_weight)


def _density(probabilities: PerBin | None, num_timesteps: int) -> PerTimestep:
    """The probability of each timestep, uniform inside the sampler's bins; by t."""
    if probabilities is None:
        return torch.full((num_timesteps,), 1 / num_timesteps, dtype=torch.float64)
    bins = bin_of(torch.arange(num_timesteps), len(probabilities), num_timesteps)
    return (probabilities / torch.bincount(bins))[bins]


def _correction(sampler: SamplerSpec, density: PerTimestep, bins: Int[Tensor, " N"]) -> PerTimestep:
    """1/(K p_k) of the K bins, if asked for; of a sampler that knows each timestep too, whose tails have no other bound."""
    if isinstance(sampler, UniformSampler) or not sampler.importance_correction:
        return torch.ones_like(density)
    widths = torch.bincount(bins).double()
    of_bins = importance_correction(torch.bincount(bins, weights=density), widths / widths.sum())
    return of_bins[bins]


def _correction_of_steps(sampler: SamplerSpec, share: PerStep, grid: Grid) -> PerStep:
    """1/(n share) over the n steps that can be trained, if asked for."""
    if isinstance(sampler, UniformSampler) or not sampler.importance_correction:
        return torch.ones(len(grid), dtype=torch.float64)
    return importance_correction(share.double(), torch.full((len(grid),), 1 / len(grid.trainable), dtype=torch.float64))


def _variance_weights(weight: VarianceWeight, num_bins: int) -> VarianceWeights:
    return VarianceWeights(
        running=RunningVariance.of(num_bins, weight.rho),
        power=_power(weight),
        direction=weight.direction,
        normalization=weight.normalization,
        clip=weight.clip,
        min_samples=weight.min_samples,
        keeps_loss=_keeps_loss(weight),
        lambda_2=weight.lambda_2,
    )


def _power(weight: VarianceWeight) -> float:
    match weight.power:
        case "std":
            return 0.5
        case "variance":
            return 1.0
        case _:
            assert_never(weight.power)


def _keeps_loss(weight: VarianceWeight) -> bool:
    match weight.tnorm:
        case "add":
            return True
        case "replace":
            return False
        case _:
            assert_never(weight.tnorm)
