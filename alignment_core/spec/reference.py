"""How the reference model moves, as frozen data; re-exported by `spec`.

Kang et al. is "Rethinking Direct Preference Optimization in Diffusion Models", arXiv 2505.18736; equations and the choices
that the paper leaves open are in `docs/methods.md`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, Literal, assert_never

from pydantic import Field

from alignment_core.spec.base import Spec, misfit
from alignment_core.spec.unions import OneOf, preset_among

Drift = Literal["mse_gap", "eps_dist"]


class FrozenReference(Spec):
    """The reference stays the starting model. With LoRA it is the base with the adapter off: no second copy."""

    type: Literal["frozen"] = "frozen"


class DriftGuard(Spec):
    """Holds the reference when it has drifted too far from the initial model, measured whenever an update is due."""

    metric: Drift | None = Field(
        default=None,
        description="`mse_gap`: mean(r_w - i_w), signed (published; the default for preference data). `eps_dist`: mean "
        "|yhat_ref - yhat_init|^2 (the default online, where there are no winners: on states of the initial model's "
        "trajectories, guided).",
    )
    delta: float | None = Field(
        default=None,
        gt=0,
        le=1e6,
        description="Threshold, strict. 0.005 when left out (Kang et al.: 0.005 for SD 1.5, 0.002 for SDXL); online 0.05 "
        "(ours: guided predictions differ more, and the demo's policies pass 0.005 in their first iteration).",
    )
    test: Literal["reference", "candidate"] = Field(
        default="reference", description="Measure the reference as it is (published), or as the update would make it."
    )
    action: Literal["freeze", "reinit", "none"] = Field(
        default="freeze",
        description="Beyond delta: keep the reference, put the initial model back, or only log and update.",
    )
    sticky: bool = Field(
        default=True, description="`freeze` is for good. Off: this update is skipped and the next one measures again."
    )
    num_samples: int = Field(
        default=64,
        ge=1,
        le=4096,
        description="Winners measured on, at noise and timesteps that never change; online, states.",
    )


class Moving(Spec):
    """What every moving reference has."""

    start: int = Field(default=1, ge=1, description="First optimiser step that may update; online, first iteration.")
    reg_mode: Literal["gate", "policy_to_init", "through_ema", "log_only"] = Field(
        default="gate",
        description="`gate` adds nothing to the loss: a guard acts on the update. `policy_to_init`: |yhat_policy - "
        "yhat_init|^2. `through_ema`: the same of the reference as the next update would make it, with its gradient "
        "in the policy. `log_only`: |yhat_ref - yhat_init|^2, which has no gradient.",
    )
    lambda_1: float = Field(default=0.1, ge=0, le=1e6, description="Weight of the term that `reg_mode` adds.")
    reg_units: Literal["logit", "mse"] = Field(
        default="logit", description="`logit` multiplies the term by beta/2, so that lambda_1 compares across betas."
    )
    offload_initial: bool = Field(
        default=False, description="Full fine-tune: keep the initial model on the CPU between its uses."
    )


TAU = Field(
    default=None,
    ge=1,
    description="tau, in optimiser steps (32 when left out: Kang et al. tune it over 16, 32 and 64 per model); for online "
    "methods in iterations (6, ours: about 32 steps at the methods' defaults), since the reference moves only between them.",
)


class HardCopyReference(Moving):
    """Every tau steps the reference becomes a copy of the policy, unless the guard holds it (Kang et al.)."""

    type: Literal["hard_copy"] = "hard_copy"
    every: int | None = TAU
    guard: DriftGuard | None = DriftGuard()


AverageStore = Literal["dense_delta", "lowrank_sum", "shared_A", "factor_average"]
STORE = Field(
    default=None,
    description="LoRA: `dense_delta` averages the weights themselves, exactly (float32; the default). `lowrank_sum` "
    "keeps their product in factors, whose rank grows by the adapter's at each update, exact up to `ref_rank_cap`. `shared_A` "
    "freezes A and trains B alone, whose average is exact: it halves what the adapter learns. `factor_average` averages A "
    "and B, which is **not** the average of the weights; its error is logged at each update.",
)
RANK_CAP = Field(
    default=None,
    ge=1,
    le=4096,
    description="`lowrank_sum`: the rank beyond which the reference is truncated (64 when left out, ours: eight updates of a "
    "rank-8 adapter); the share of energy lost is logged at each update.",
)
DEFAULT_RANK_CAP = 64


class EmaReference(Moving):
    """Every k steps ref = (1 - alpha) ref + alpha policy, in float32."""

    type: Literal["ema"] = "ema"
    every: int = Field(
        default=1, ge=1, description="k, in optimiser steps (TR-DPO: 512; Diffusion-KTO: 20); online, in iterations."
    )
    alpha: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="1e-3 when left out, online 5e-3 (an iteration has about five steps); both ours. Half-life "
        "ln 0.5 / ln(1-alpha): 693 updates at 1e-3.",
    )
    guard: DriftGuard | None = None
    ref_store: AverageStore | None = STORE
    ref_rank_cap: int | None = RANK_CAP


class DriftControlledReference(Moving):
    """Like `ema`, with the largest alpha whose measured drift from the initial model is within a budget."""

    type: Literal["drift_controlled"] = "drift_controlled"
    every: int | None = TAU
    alpha_max: float = Field(default=1.0, gt=0, le=1, description="alpha while the policy itself is within the budget.")
    metric: Drift = "eps_dist"
    delta: float | None = Field(
        default=None, gt=0, le=1e6, description="The budget; 0.005 when left out, online 0.05 (ours)."
    )
    delta_units: Literal["absolute", "relative"] = Field(
        default="absolute",
        description="`relative` multiplies delta by the initial model's mean error on winners; online, by the mean square of "
        "its prediction.",
    )
    num_samples: int = Field(default=64, ge=1, le=4096, description="Winners measured on; online, states.")
    ref_store: AverageStore | None = STORE
    ref_rank_cap: int | None = RANK_CAP


class ReferencePreset(Spec):
    """A moving reference with settings that belong together; the resolved spec shows them.

    `paper`: hard copy every 32 steps, frozen for good when the MSE gap on winners passes 0.005 (Kang et al.). `seed`: a slow
    average (1e-3, every step) and a penalty that ties the policy to the initial model. `adaptive`: drift-controlled alpha.
    Online, copies and controlled updates come every 6 iterations, averages (5e-3) every iteration, and drift is `eps_dist`.
    """

    type: Literal["preset"] = "preset"
    name: Literal["paper", "seed", "adaptive"]


REFERENCE_PRESETS: dict[str, HardCopyReference | EmaReference | DriftControlledReference] = {
    "paper": HardCopyReference(),
    "seed": EmaReference(reg_mode="policy_to_init"),
    "adaptive": DriftControlledReference(),
}

MovingReferenceSpec = HardCopyReference | EmaReference | DriftControlledReference
ReferenceSpec = Annotated[
    FrozenReference | HardCopyReference | EmaReference | DriftControlledReference | ReferencePreset,
    OneOf(preset_among(REFERENCE_PRESETS)),
]


@dataclass(frozen=True)
class _Defaults:
    """What is left out depends on whether the method draws its own images."""

    tau: int
    alpha: float
    metric: Drift
    delta: float


_OFFLINE = _Defaults(tau=32, alpha=1e-3, metric="mse_gap", delta=0.005)
_ONLINE = _Defaults(tau=6, alpha=5e-3, metric="eps_dist", delta=0.05)


def resolve_reference(
    reference: ReferenceSpec, *, is_lora: bool, is_online: bool
) -> FrozenReference | MovingReferenceSpec:
    """The same choice without presets, with the store of a LoRA's reference and everything else left out written out."""
    chosen = REFERENCE_PRESETS[reference.name] if isinstance(reference, ReferencePreset) else reference
    default = _ONLINE if is_online else _OFFLINE
    match chosen:
        case FrozenReference():
            return chosen
        case HardCopyReference():
            filled: dict[str, Any] = {
                "every": chosen.every or default.tau,
                "guard": _resolve_guard(chosen.guard, default),
            }
        case EmaReference():
            alpha = default.alpha if chosen.alpha is None else chosen.alpha
            filled = {"alpha": alpha, "guard": _resolve_guard(chosen.guard, default)}
        case DriftControlledReference():
            filled = {"every": chosen.every or default.tau, "delta": chosen.delta or default.delta}
        case _:
            assert_never(chosen)
    if not isinstance(chosen, HardCopyReference) and is_lora:
        filled |= _resolve_store(chosen)
    return chosen.model_copy(update=filled)


def _resolve_guard(guard: DriftGuard | None, default: _Defaults) -> DriftGuard | None:
    if guard is None:
        return None
    return guard.model_copy(update={"metric": guard.metric or default.metric, "delta": guard.delta or default.delta})


def drift_metric(reference: MovingReferenceSpec) -> Drift | None:
    """What a resolved reference measures, if anything."""
    if isinstance(reference, DriftControlledReference):
        return reference.metric
    return None if reference.guard is None else reference.guard.metric


def _resolve_store(reference: EmaReference | DriftControlledReference) -> dict[str, Any]:
    store, cap = reference.ref_store or "dense_delta", reference.ref_rank_cap
    return {"ref_store": store, "ref_rank_cap": cap or DEFAULT_RANK_CAP if store == "lowrank_sum" else cap}


def shares_a(reference: ReferenceSpec) -> bool:
    """Whether the adapter trains its B alone, so that policy and reference have one A."""
    return isinstance(reference, EmaReference | DriftControlledReference) and reference.ref_store == "shared_A"


def refuse_unfit_store(reference: EmaReference | DriftControlledReference, rank: int | None) -> None:
    """A store of a resolved reference must fit the adapter: of this rank, or None for a full fine-tune. Places are `JobSpec`'s."""
    cap = reference.ref_rank_cap
    if rank is None and reference.ref_store is not None:
        raise misfit(
            "reference.ref_store is about LoRA; a full fine-tune averages its weights as they are",
            "reference.ref_store",
        )
    if cap is not None and reference.ref_store != "lowrank_sum":
        raise misfit("reference.ref_rank_cap belongs to reference.ref_store lowrank_sum", "reference.ref_rank_cap")
    if cap is not None and rank is not None and cap < rank:
        raise misfit(
            f"reference.ref_rank_cap ({cap}) must be at least adapter.rank ({rank})",
            "reference.ref_rank_cap",
            "adapter.rank",
        )


def is_copied_whole(reference: FrozenReference | MovingReferenceSpec) -> bool:
    """Whether an update may make the reference the policy itself."""
    match reference:
        case HardCopyReference():
            return True
        case EmaReference(alpha=alpha) | DriftControlledReference(alpha_max=alpha):
            return alpha == 1
        case FrozenReference():
            return False
