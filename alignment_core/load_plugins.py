"""From a spec to the two plug-ins: how the reference moves, and which timesteps count how much."""

from typing import assert_never, cast

import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from alignment_core.actors import Actors
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.drift import DriftKind, DriftOnWinners, winner_probes
from alignment_core.errors import ModelError
from alignment_core.protocols import ReferenceUpdate, TimestepStrategy
from alignment_core.reference import DriftControl, FixedAlpha, FrozenReference, Guard, MovingReference, Penalty
from alignment_core.spec import JobSpec
from alignment_core.spec_reference import (
    DriftControlledReference,
    DriftGuard,
    EmaReference,
    HardCopyReference,
    MovingReferenceSpec,
    ReferencePreset,
)
from alignment_core.spec_reference import FrozenReference as FrozenReferenceSpec
from alignment_core.spec_timesteps import (
    ConstantScale,
    ConstantWeight,
    DiscountedSampler,
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
from alignment_core.spec_timesteps import TimestepAware as TimestepAwareSpec
from alignment_core.spec_timesteps import UniformTimesteps as UniformTimestepsSpec
from alignment_core.timestep_weights import (
    PerBin,
    PerTimestep,
    RunningVariance,
    bin_of,
    discounted_probabilities,
    minmax_inv_sqrt_snr,
)
from alignment_core.timesteps import TimestepAware, UniformTimesteps, VarianceWeights

# --- the reference -------------------------------------------------------------------------------------------------


def build_reference(
    spec: JobSpec, actors: Actors, pairs: PreferencePairs | None, accelerator: Accelerator
) -> ReferenceUpdate:
    """The reference's rule; a moving reference is given weights of its own in `actors`.

    `pairs` may be None where the spec asks for no measure of drift.
    """
    reference = spec.reference
    match reference:
        case FrozenReferenceSpec():
            return FrozenReference()
        case ReferencePreset():
            raise AssertionError("the spec is resolved")
        case HardCopyReference(guard=guard):
            actors.let_reference_move("hard_copy", offload_initial=reference.offload_initial)
            return _moving(spec, reference, FixedAlpha(1.0, _guard(guard)), guard, actors, pairs, accelerator)
        case EmaReference(alpha=alpha, guard=guard, ref_store=store):
            actors.let_reference_move(store or "dense_delta", offload_initial=reference.offload_initial)
            return _moving(spec, reference, FixedAlpha(alpha, _guard(guard)), guard, actors, pairs, accelerator)
        case DriftControlledReference(delta=delta, alpha_max=alpha_max, delta_units=units, ref_store=store):
            actors.let_reference_move(store or "dense_delta", offload_initial=reference.offload_initial)
            rule = DriftControl(delta, alpha_max, relative=units == "relative")
            return _moving(spec, reference, rule, reference, actors, pairs, accelerator)
        case _:
            assert_never(reference)


def _moving(
    spec: JobSpec,
    reference: MovingReferenceSpec,
    rule: FixedAlpha | DriftControl,
    measured: DriftGuard | DriftControlledReference | None,
    actors: Actors,
    pairs: PreferencePairs | None,
    accelerator: Accelerator,
) -> MovingReference:
    drift = None
    if measured is not None:
        assert pairs is not None, "the spec measures drift where there are pairs"
        drift = _drift(spec, measured.metric, measured.num_samples, actors, pairs, accelerator)
    alpha = rule.alpha if isinstance(rule, FixedAlpha) else rule.alpha_max
    return MovingReference(
        every=reference.every,
        start=reference.start,
        rule=rule,
        drift=drift,
        penalty=_penalty(reference, alpha),
    )


def _guard(guard: DriftGuard | None) -> Guard | None:
    if guard is None:
        return None
    return Guard(guard.delta, guard.action, guard.sticky, tests_candidate=guard.test == "candidate")


def _penalty(reference: MovingReferenceSpec, alpha: float) -> Penalty | None:
    if reference.reg_mode == "gate":
        return None
    return Penalty(reference.reg_mode, reference.lambda_1, reference.reg_units == "logit", alpha)


def _drift(
    spec: JobSpec, kind: DriftKind, num: int, actors: Actors, pairs: PreferencePairs, accelerator: Accelerator
) -> DriftOnWinners:
    def add_up(values: Tensor) -> Tensor:
        return cast(Tensor, accelerator.reduce(values.to(accelerator.device), reduction="sum"))

    probes = winner_probes(
        pairs,
        actors,
        num=num,
        batch_size=2 * spec.training.batch_size,  # a step's forward holds both images of each pair
        seed=spec.seed,
        rank=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )
    return DriftOnWinners(kind, actors, probes, add_up)


# --- the timesteps -------------------------------------------------------------------------------------------------


def build_timesteps(timesteps: TimestepSpec, abar: Float[Tensor, " N"]) -> TimestepStrategy:
    """Raises `ModelError` when the model has fewer timesteps than the spec has bins."""
    match timesteps:
        case UniformTimestepsSpec():
            return UniformTimesteps(len(abar))
        case TimestepPreset():
            raise AssertionError("the spec is resolved")
        case TimestepAwareSpec():
            return _timestep_aware(timesteps, abar.cpu())
        case _:
            assert_never(timesteps)


def _timestep_aware(spec: TimestepAwareSpec, abar: Float[Tensor, " N"]) -> TimestepAware:
    if spec.num_bins > len(abar):
        raise ModelError(
            "too_many_bins", f"timesteps.num_bins is {spec.num_bins}, and the model has {len(abar)} timesteps"
        )
    weight = spec.loss_weight
    learnt = _variance_weights(weight, spec.num_bins) if isinstance(weight, VarianceWeight) else None
    against = weight.stat_against if isinstance(weight, VarianceWeight) else None
    return TimestepAware(
        num_timesteps=len(abar),
        num_bins=spec.num_bins,
        probabilities=_probabilities(spec.sampler, spec.num_bins),
        scale=_scale(spec.reward_scale, spec.num_bins, abar),
        fixed_weights=_fixed_weights(spec),
        learnt_weights=learnt,
        signal_against=against or "reference",
    )


def _probabilities(sampler: SamplerSpec, num_bins: int) -> PerBin | None:
    match sampler:
        case UniformSampler():
            return None
        case DiscountedSampler(gamma=gamma):
            return discounted_probabilities(gamma, num_bins)
        case TableSampler(probabilities=probabilities):
            table = torch.tensor(probabilities, dtype=torch.float64)
            return table / table.sum()
        case _:
            assert_never(sampler)


def _scale(scale: RewardScaleSpec, num_bins: int, abar: Float[Tensor, " N"]) -> PerTimestep:
    match scale:
        case ConstantScale(value=value):
            return torch.full((len(abar),), value, dtype=torch.float64)
        case MinMaxScale():
            return minmax_inv_sqrt_snr(abar)
        case TableScale(values=values):
            bins = bin_of(torch.arange(len(abar)), num_bins, len(abar))
            return torch.tensor(values, dtype=torch.float64)[bins]
        case _:
            assert_never(scale)


def _fixed_weights(spec: TimestepAwareSpec) -> PerBin:
    """The weights that no statistic changes: a table, and the sampler's importance correction 1/(K p_k)."""
    weights = torch.ones(spec.num_bins, dtype=torch.float64)
    match spec.loss_weight:
        case ConstantWeight() | VarianceWeight():
            pass
        case TableWeight(values=values):
            weights = torch.tensor(values, dtype=torch.float64)
        case _:
            assert_never(spec.loss_weight)
    sampler = spec.sampler
    if isinstance(sampler, UniformSampler) or not sampler.importance_correction:
        return weights
    probabilities = _probabilities(sampler, spec.num_bins)
    assert probabilities is not None
    correction = 1 / (spec.num_bins * probabilities)
    return weights * torch.where(probabilities > 0, correction, torch.ones_like(correction))


def _variance_weights(weight: VarianceWeight, num_bins: int) -> VarianceWeights:
    return VarianceWeights(
        running=RunningVariance.of(num_bins, weight.rho),
        power=0.5 if weight.power == "std" else 1.0,
        direction=weight.direction,
        normalization=weight.normalization,
        clip=weight.clip,
        min_samples=weight.min_samples,
        keeps_loss=weight.tnorm == "add",
        lambda_2=weight.lambda_2,
    )
