"""What is watched while a model trains, and what happens when it goes wrong, as frozen data; re-exported by `spec`.

`docs/guards.md` has each guard's rule and the runs that its defaults were measured on. A guard set to null is off.
"""

from typing import Literal

from pydantic import Field

from alignment_core.spec.base import Spec

OnViolation = Literal["warn", "stop", "rollback"]
ON_VIOLATION = Field(default=None, description="For this guard alone; `guards.on_violation` when left out.")


class MarginSaturationGuard(Spec):
    """Every pair is told apart and the loss is gone, or every ratio is clamped: nothing is left to learn from."""

    max_loss: float = Field(default=0.01, ge=0, le=1, description="Mean loss of the window; with `min_accuracy`.")
    min_accuracy: float = Field(default=0.999, gt=0.5, le=1, description="Mean implicit accuracy of the window.")
    max_clamped: float = Field(
        default=0.95, gt=0, le=1, description="D3PO: mean share of ratios at their clamp, which have no gradient."
    )
    window: int = Field(default=20, ge=1, le=1000, description="Optimiser steps averaged.")
    on_violation: OnViolation | None = ON_VIOLATION


class ErrorsRisingGuard(Spec):
    """Both images of a pair are modelled worse than by the initial model, while the margin may still grow."""

    max_ratio: float = Field(
        default=1.5, gt=1, le=1e6, description="Error over the initial model's error, of chosen and of rejected images."
    )
    window: int = Field(default=20, ge=1, le=1000, description="Optimiser steps averaged.")
    on_violation: OnViolation | None = ON_VIOLATION


class DiversityGuard(Spec):
    """The images of one prompt become alike. Needs `evaluation.every`."""

    min_ratio: float = Field(default=0.7, gt=0, lt=1, description="Diversity over the initial model's diversity.")
    window: int = Field(default=1, ge=1, le=100, description="Probes in a row that must be below.")
    on_violation: OnViolation | None = ON_VIOLATION


class RewardHackingGuard(Spec):
    """The trained reward rises while prompt-following, or every reward not trained on, falls. Needs `evaluation.every`."""

    max_drop: float = Field(
        default=1.2,
        ge=0,
        le=1e6,
        description="Fall of a score in standard deviations of one model's scores; its "
        "interval must lie below zero too.",
    )
    window: int = Field(default=1, ge=1, le=100, description="Probes in a row that must say so.")
    on_violation: OnViolation | None = ON_VIOLATION


class ReferenceDriftGuard(Spec):
    """A moving reference has left the initial model, or the policy its reference, by more than training needs."""

    max_drift: float = Field(
        default=0.05,
        gt=0,
        le=1e6,
        description="Of `ref_drift_*`, or of DPOK's `kl`: squared errors of the prediction.",
    )
    max_mean_shift: float = Field(
        default=5.0,
        gt=0,
        le=1e6,
        description="Mean `mean_shift` of TailorPO and D3PO, in standard deviations of a step.",
    )
    window: int = Field(default=5, ge=1, le=1000, description="Optimiser steps averaged, of what every step measures.")
    on_violation: OnViolation | None = ON_VIOLATION


class NotFiniteGuard(Spec):
    """The loss, the gradient or a probe's images are NaN or infinite. `warn` fails the run: it cannot go on."""

    on_violation: OnViolation | None = ON_VIOLATION


class GuardsSpec(Spec):
    """Each guard speaks once a run, with a warning event. `stop` ends training there; `rollback` also goes back.

    The result of `rollback` is the best checkpoint by held-out reward, or without probes the last one before the violation.
    """

    on_violation: OnViolation = Field(default="warn", description="For every guard that does not say otherwise.")
    margin_saturation: MarginSaturationGuard | None = MarginSaturationGuard()
    errors_rising: ErrorsRisingGuard | None = ErrorsRisingGuard()
    diversity: DiversityGuard | None = DiversityGuard()
    reward_hacking: RewardHackingGuard | None = RewardHackingGuard()
    reference_drift: ReferenceDriftGuard | None = ReferenceDriftGuard()
    not_finite: NotFiniteGuard | None = NotFiniteGuard()
