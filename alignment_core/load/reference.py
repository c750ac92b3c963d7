"""From a spec to how the reference moves."""

from typing import Literal, assert_never, cast

from accelerate import Accelerator
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.load.resolved import known
from alignment_core.protocols import ReferenceUpdate
from alignment_core.reference.drift_on_states import DriftOnStates
from alignment_core.reference.drift_on_winners import DriftKind, DriftMeasure, DriftOnWinners, Winners, winner_probes
from alignment_core.reference.moving import DriftControl, FixedAlpha, FrozenReference, Guard, MovingReference, Penalty
from alignment_core.rollouts.setup import RolloutSetup
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
