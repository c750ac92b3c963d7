"""From a spec to the two plug-ins: how the reference moves, and which timesteps count how much."""

from typing import Literal, Protocol, assert_never, cast, runtime_checkable

import torch
from accelerate import Accelerator
from jaxtyping import Int
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.diffusion.path import Grid, Path
from alignment_core.errors import ModelError
from alignment_core.load.resolved import known
from alignment_core.protocols import ReferenceUpdate, TimestepStrategy
from alignment_core.reference.drift_on_states import DriftOnStates
from alignment_core.reference.drift_on_winners import DriftKind, DriftMeasure, DriftOnWinners, Winners, winner_probes
from alignment_core.reference.moving import DriftControl, FixedAlpha, FrozenReference, Guard, MovingReference, Penalty
from alignment_core.rollouts.setup import RolloutSetup
from alignment_core.shapes import PerStep
from alignment_core.spec import JobSpec
from alignment_core.spec.reference import (
    DriftControlledReference,
    DriftGuard,
    EmaReference,
    HardCopyReference,
    MovingReferenceSpec,
    ReferencePreset,
)
from alignment_core.spec.reference import FrozenReference as FrozenReferenceSpec
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

# --- the reference -------------------------------------------------------------------------------------------------


def build_reference(
    spec: JobSpec, actors: Actors, winners: Winners | None, setup: RolloutSetup | None, accelerator: Accelerator
) -> ReferenceUpdate:
    """The reference's rule; a moving reference is given weights of its own in `actors`.

    Drift is measured on `winners`, or on states of trajectories as an online method's `setup` draws them.
    """
    reference = spec.reference
    match reference:
        case FrozenReferenceSpec():
            return FrozenReference()
        case ReferencePreset():
            raise AssertionError("the spec is resolved")
        case HardCopyReference(guard=guard):
            actors.let_reference_move("hard_copy", offload_initial=reference.offload_initial)
            rule, measured = FixedAlpha(1.0, _guard(guard)), guard
        case EmaReference(alpha=alpha, guard=guard, ref_store=store):
            actors.let_reference_move(
                store or "dense_delta", rank_cap=reference.ref_rank_cap, offload_initial=reference.offload_initial
            )
            rule, measured = FixedAlpha(known(alpha), _guard(guard)), guard
        case DriftControlledReference(alpha_max=alpha_max, delta_units=units, ref_store=store):
            actors.let_reference_move(
                store or "dense_delta", rank_cap=reference.ref_rank_cap, offload_initial=reference.offload_initial
            )
            rule, measured = DriftControl(known(reference.delta), alpha_max, relative=_is_relative(units)), reference
        case _:
            assert_never(reference)
    drift = None if measured is None else _drift(spec, measured, actors, winners, setup, accelerator)
    alpha = rule.alpha if isinstance(rule, FixedAlpha) else rule.alpha_max
    turn = spec.steps_per_turn
    return MovingReference(
        every=known(reference.every) * turn,
        start=(reference.start - 1) * turn + 1,
        rule=rule,
        drift=drift,
        penalty=_penalty(reference, alpha),
    )


def _guard(guard: DriftGuard | None) -> Guard | None:
    if guard is None:
        return None
    return Guard(known(guard.delta), guard.action, guard.sticky, tests_candidate=_tests_candidate(guard))


def _tests_candidate(guard: DriftGuard) -> bool:
    match guard.test:
        case "candidate":
            return True
        case "reference":
            return False
        case _:
            assert_never(guard.test)


def _is_relative(units: Literal["absolute", "relative"]) -> bool:
    match units:
        case "relative":
            return True
        case "absolute":
            return False
        case _:
            assert_never(units)


def _penalty(reference: MovingReferenceSpec, alpha: float) -> Penalty | None:
    match reference.reg_mode:
        case "gate":
            return None
        case "policy_to_init" | "through_ema" | "log_only" as mode:
            return Penalty(mode, reference.lambda_1, _is_in_logit_units(reference), alpha)
        case _:
            assert_never(reference.reg_mode)


def _is_in_logit_units(reference: MovingReferenceSpec) -> bool:
    match reference.reg_units:
        case "logit":
            return True
        case "mse":
            return False
        case _:
            assert_never(reference.reg_units)


def _drift(
    spec: JobSpec,
    measured: DriftGuard | DriftControlledReference,
    actors: Actors,
    winners: Winners | None,
    setup: RolloutSetup | None,
    accelerator: Accelerator,
) -> DriftMeasure:
    if setup is not None:
        return DriftOnStates(setup, actors, measured.num_samples, spec.batch_size)
    assert winners is not None, "what is not drawn is learnt from pairs"
    return _drift_on_winners(spec, known(measured.metric), measured.num_samples, actors, winners, accelerator)


def _drift_on_winners(
    spec: JobSpec, kind: DriftKind, num: int, actors: Actors, winners: Winners, accelerator: Accelerator
) -> DriftOnWinners:
    def add_up(values: Tensor) -> Tensor:
        return cast(Tensor, accelerator.reduce(values.to(accelerator.device), reduction="sum"))

    probes = winner_probes(
        winners,
        actors,
        num=num,
        batch_size=spec.method.images_per_example * spec.batch_size,  # as many as a step's forward holds
        seed=spec.seed,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )
    return DriftOnWinners(kind, actors, probes, add_up)


# --- the timesteps -------------------------------------------------------------------------------------------------


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
