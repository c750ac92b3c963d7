"""How the reference model moves: implementations of `protocols.ReferenceUpdate`.

    ref <- (1 - alpha) ref + alpha theta          every so many optimiser steps, float32

With alpha = 1, a copy, it is the reference update of Kang et al. (arXiv 2505.18736), which a guard stops when the reference
has drifted too far from the initial model. `docs/methods.md` has the modes and where the defaults come from.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal, assert_never

import torch
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.errors import CheckpointError
from alignment_core.protocols import Predictions, StepLoss
from alignment_core.reference.drift_control import largest_alpha
from alignment_core.reference.drift_on_winners import DriftMeasure
from alignment_core.rollouts.rollout import Predict, guided
from alignment_core.shapes import Latents, PerExample


class FrozenReference:
    """The reference stays the starting model, and the policy pays nothing beyond the method's own loss."""

    def penalty(self, actors: Actors, loss: StepLoss) -> None:
        return None

    def after_step(self, actors: Actors, step: int) -> dict[str, float]:
        return {}

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        assert not state, "a frozen reference has no state"


# --- what an update does -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Guard:
    """What to do about a drift D: update while D <= delta, beyond it `action`."""

    delta: float
    action: Literal["freeze", "reinit", "none"]
    sticky: bool
    tests_candidate: bool

    def decide(self, drift: float) -> Literal["update", "freeze", "skip", "reinit"]:
        """Strict: D = delta still updates. NaN does not."""
        if drift <= self.delta:
            return "update"
        match self.action:
            case "none":
                return "update"
            case "reinit":
                return "reinit"
            case "freeze":
                return "freeze" if self.sticky else "skip"
            case _:
                assert_never(self.action)


@dataclass(frozen=True)
class FixedAlpha:
    """The same alpha at every update, held by the guard if there is one."""

    alpha: float
    guard: Guard | None


@dataclass(frozen=True)
class DriftControl:
    """The largest alpha up to `alpha_max` that keeps the reference within `delta` of the initial model.

    `relative` multiplies delta by the unit of the measure.
    """

    delta: float
    alpha_max: float
    relative: bool


@dataclass(frozen=True)
class Penalty:
    """lambda_1 times a squared distance to the initial model, over every image of an example; `alpha` is `through_ema`'s.

    `in_logit_units` multiplies it by the method's logit scale (beta/2), so that lambda_1 compares across betas.
    """

    mode: Literal["policy_to_init", "through_ema", "log_only"]
    lambda_1: float
    in_logit_units: bool
    alpha: float

    def of(self, actors: Actors, predictions: Predictions, num_examples: int) -> PerExample:
        """The term of each example; `log_only` has no gradient."""
        moved = predictions.distance(self._prediction(actors, predictions), predictions.initial)
        scale = self.lambda_1 * (predictions.logit_scale if self.in_logit_units else 1.0)
        return scale * moved.reshape(-1, num_examples).mean(dim=0)

    def _prediction(self, actors: Actors, predictions: Predictions) -> Latents:
        match self.mode:
            case "policy_to_init":
                return predictions.policy
            case "log_only":
                return predictions.reference
            case "through_ema":
                return _guided_as(predictions, partial(actors.predict_with, actors.blend(self.alpha)))
            case _:
                assert_never(self.mode)


def _guided_as(predictions: Predictions, predict: Predict) -> Latents:
    """What `predict` says to the inputs of `predictions`, under their guidance."""
    return guided(
        predict,
        predictions.x_t,
        predictions.times,
        predictions.conditioning,
        predictions.empty,
        predictions.guidance_scale,
    )


# --- the update ----------------------------------------------------------------------------------------------------


class MovingReference:
    """Moves the reference towards the policy every `every` optimiser steps from `start` on.

    `drift` is needed by a guard and by `DriftControl`. State: whether it is frozen for good, the last measured drift, how many
    updates were made; the weights themselves belong to `Actors`.
    """

    def __init__(
        self,
        *,
        every: int,
        start: int,
        rule: FixedAlpha | DriftControl,
        drift: DriftMeasure | None,
        penalty: Penalty | None,
    ) -> None:
        self._every = every
        self._start = start
        self._rule = rule
        self._drift = drift
        self._penalty = penalty
        self.is_frozen = False
        self.last_drift = math.nan
        self.num_updates = 0

    def penalty(self, actors: Actors, loss: StepLoss) -> PerExample | None:
        if self._penalty is None:
            return None
        assert loss.predictions is not None, "this method tells no predictions"
        return self._penalty.of(actors, loss.predictions, len(loss.per_example))

    def after_step(self, actors: Actors, step: int) -> dict[str, float]:
        if step < self._start or step % self._every != 0:
            return {}
        metrics = {"ref_alpha": 0.0} if self.is_frozen else self._update(actors)
        if self._drift is not None:
            metrics[f"ref_drift_{self._drift.kind}"] = self.last_drift
        return {**metrics, "ref_frozen": float(self.is_frozen), "ref_updates": float(self.num_updates)}

    def _update(self, actors: Actors) -> dict[str, float]:
        with torch.no_grad():
            match self._rule:
                case FixedAlpha(alpha=alpha, guard=guard):
                    return self._blend(actors, alpha) if guard is None else self._guarded(actors, alpha, guard)
                case DriftControl():
                    return self._controlled(actors, self._rule)
                case _:
                    assert_never(self._rule)

    def _blend(self, actors: Actors, alpha: float) -> dict[str, float]:
        missed = actors.blending_metrics(alpha)
        actors.set_reference(actors.blend(alpha))
        self.num_updates += 1
        return {"ref_alpha": alpha, **missed}

    def _guarded(self, actors: Actors, alpha: float, guard: Guard) -> dict[str, float]:
        assert self._drift is not None
        self.last_drift = self._drift.of(actors.blend(alpha) if guard.tests_candidate else actors.reference)
        match guard.decide(self.last_drift):
            case "update":
                return self._blend(actors, alpha)
            case "reinit":
                actors.reset_reference()
            case "freeze":
                self.is_frozen = True
            case "skip":
                pass
        return {"ref_alpha": 0.0}

    def _controlled(self, actors: Actors, rule: DriftControl) -> dict[str, float]:
        measure = self._drift
        assert measure is not None
        delta = rule.delta * measure.unit() if rule.relative else rule.delta
        d_policy = measure.of(None)

        def drift_of(alpha: float) -> float:
            return d_policy if alpha == 1 else measure.of(actors.blend(alpha))

        chosen = largest_alpha(drift_of, measure.of(actors.reference), delta, rule.alpha_max)
        self.last_drift = chosen.drift
        moved = {"ref_alpha": 0.0} if chosen.alpha == 0 else self._blend(actors, chosen.alpha)
        return {f"policy_drift_{measure.kind}": d_policy, **moved}

    def state_dict(self) -> dict[str, Tensor]:
        state = {"is_frozen": torch.tensor(self.is_frozen), "num_updates": torch.tensor(self.num_updates)}
        if math.isnan(self.last_drift):  # nothing was measured yet
            return state
        return {**state, "last_drift": torch.tensor(self.last_drift, dtype=torch.float64)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if missing := {"is_frozen", "num_updates"} - state.keys():
            raise CheckpointError("checkpoint_altered", f"reference state: {sorted(missing)[0]!r} is missing")
        self.is_frozen = bool(state["is_frozen"])
        self.last_drift = float(state.get("last_drift", math.nan))
        self.num_updates = int(state["num_updates"])
