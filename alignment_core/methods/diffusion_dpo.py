r"""Diffusion-DPO: direct preference optimisation of a diffusion model on image pairs.

Wallace et al., "Diffusion Model Alignment Using Direct Preference Optimization", arXiv 2311.12908. With m the policy's and
r the reference's mean squared regression error on the winner (w) and the loser (l) at one shared (t, eps),

    u = -(beta/2) [(m_w - m_l) - (r_w - r_l)],        L = E[-log sigma(u)].

`docs/methods.md` has the conventions of beta and the loss variants.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, assert_never

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.diffusion.formulas import Reduction, beta_of_means, regression_error
from alignment_core.methods.pair_batches import NoisyInputs, PairBatch, PairDraws, noisy_pairs
from alignment_core.methods.reference_errors import ReferenceErrors
from alignment_core.protocols import Predictions, StepLoss, TimestepStrategy
from alignment_core.shapes import Latents, PerExample

LossKind = Literal["sigmoid", "hinge", "ipo", "cdpo", "robust", "dmpo"]
PairLoss = Callable[[PerExample], PerExample]


# --- the loss ------------------------------------------------------------------------------------------------------


def preference_logit(m_w: PerExample, m_l: PerExample, r_w: PerExample, r_l: PerExample, beta: float) -> PerExample:
    """u = -(beta/2) [(m_w - m_l) - (r_w - r_l)]; positive when the policy prefers the winner more than the reference does."""
    return -0.5 * beta * ((m_w - m_l) - (r_w - r_l))


def sigmoid_loss(h: PerExample) -> PerExample:
    """-log sigma(h)."""
    return -F.logsigmoid(h)


def hinge_loss(h: PerExample) -> PerExample:
    """max(0, 1 - h)."""
    return (1 - h).clamp(min=0)


def ipo_loss(h: PerExample) -> PerExample:
    """(h - 1/2)^2: IPO (arXiv 2310.12036) divided by (beta/2)^2, so that its scale does not vanish with beta."""
    return (h - 0.5).square()


def cdpo_loss(h: PerExample, label_smoothing: float) -> PerExample:
    """-(1-e) log sigma(h) - e log sigma(-h); least at h = ln((1-e)/e)."""
    return -(1 - label_smoothing) * F.logsigmoid(h) - label_smoothing * F.logsigmoid(-h)


def robust_loss(h: PerExample, label_smoothing: float) -> PerExample:
    """[-(1-e) log sigma(h) + e log sigma(-h)] / (1-2e): unbiased under flipped labels, and unbounded below."""
    e = label_smoothing
    return (-(1 - e) * F.logsigmoid(h) + e * F.logsigmoid(-h)) / (1 - 2 * e)


def dmpo_loss(h: PerExample, alpha: float) -> PerExample:
    """KL(Bern(sigma(h)) || Bern(1-a)); zero at h = ln((1-a)/a). From Diffusion-SDPO (arXiv 2511.03317)."""
    p = torch.sigmoid(h)
    wins = p * (F.logsigmoid(h) - math.log1p(-alpha))
    return wins + torch.sigmoid(-h) * (F.logsigmoid(-h) - math.log(alpha))


def pair_loss(kind: LossKind, *, label_smoothing: float | None = None, dmpo_alpha: float | None = None) -> PairLoss:
    """The loss of one logit, by name."""
    match kind:
        case "sigmoid":
            return sigmoid_loss
        case "hinge":
            return hinge_loss
        case "ipo":
            return ipo_loss
        case "cdpo":
            assert label_smoothing is not None
            return lambda h: cdpo_loss(h, label_smoothing)
        case "robust":
            assert label_smoothing is not None
            return lambda h: robust_loss(h, label_smoothing)
        case "dmpo":
            assert dmpo_alpha is not None
            return lambda h: dmpo_loss(h, dmpo_alpha)
        case _:
            assert_never(kind)


def soft_label_loss(loss: PairLoss, h: PerExample, label: PerExample) -> PerExample:
    """p loss(h) + (1-p) loss(-h): the expected loss when `chosen` is preferred with probability p; plain at p = 1.

    For the sigmoid loss this is cDPO with e = 1 - p.
    """
    return torch.where(label == 1, loss(h), label * loss(h) + (1 - label) * loss(-h))


# --- what the networks say -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PairErrors:
    """Regression errors of policy (m) and reference (r) on winner and loser, `[B]`, float32."""

    m_w: PerExample
    m_l: PerExample
    r_w: PerExample
    r_l: PerExample


@dataclass(frozen=True)
class PairForward:
    """A batch's predictions with their errors; `vs_initial` holds the initial model's in place of a moving reference's.

    No predictions are told where the reference was not asked: nothing but what moves it reads them.
    """

    predictions: Predictions | None
    errors: PairErrors
    vs_initial: PairErrors | None


# --- the method ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DiffusionDPO:
    """Diffusion-DPO over a set of pairs: `protocols.Method[PairBatch]`.

    `reference_errors` remembers those of a reference that never moves, at the draws of `PairDraws.num_draws`.
    """

    draws: PairDraws
    loss_of: PairLoss
    beta: float
    reduction: Reduction
    half_factor: bool
    in_eps_units: bool
    reference_errors: ReferenceErrors | None = None

    def batches(self, actors: Actors, timesteps: TimestepStrategy, first_step: int) -> Iterator[PairBatch]:
        """Micro-batches from `first_step` on, without end; epochs are shuffled anew and run into each other."""
        return self.draws.batches(actors, timesteps, first_step)

    def loss(self, actors: Actors, batch: PairBatch) -> StepLoss:
        """The loss of each pair, float32 `[B]`, and the metrics of `docs/methods.md`."""
        forward = self._forward(actors, batch)
        errors, beta = forward.errors, self._beta(batch)
        u = preference_logit(errors.m_w, errors.m_l, errors.r_w, errors.r_l, beta)
        per_example = soft_label_loss(self.loss_of, batch.reward_scale * u, batch.label)
        metrics = {"loss": per_example.detach(), **pair_metrics(errors, u.detach())}
        gains = metrics["chosen_gain"].abs() + metrics["rejected_gain"].abs()
        metrics["reward_magnitude"] = 0.25 * beta * gains
        signal_vs_initial = None
        if forward.vs_initial is not None and forward.predictions is not None:
            metrics |= metrics_vs_init(forward.vs_initial, beta)
            metrics["ref_drift_batch_eps_dist"] = reference_distance(forward.predictions, len(u))
            signal_vs_initial = pair_metrics(forward.vs_initial, metrics["margin_vs_init"])["margin_unscaled"]
        return StepLoss(
            per_example,
            batch.timesteps,
            signal=metrics["margin_unscaled"],
            metrics=metrics,
            signal_vs_initial=signal_vs_initial,
            predictions=forward.predictions,
        )

    def asking_anew(self, batch: PairBatch) -> "tuple[DiffusionDPO, PairBatch]":
        return replace(self, reference_errors=None), batch

    def _beta(self, batch: PairBatch) -> float:
        beta = self.beta if self.half_factor else 2 * self.beta
        return beta_of_means(beta, batch.eps, self.reduction)

    def _forward(self, actors: Actors, batch: PairBatch) -> PairForward:
        in_eps = actors.family.path.eps_scale(batch.timesteps)
        scale = in_eps if self.in_eps_units else torch.ones_like(in_eps)
        inputs, target = noisy_pairs(actors.family, batch)
        if self.reference_errors is not None:
            return self._remembered(actors, batch, inputs, target, scale, self.reference_errors)
        reference = actors.predict_reference(*inputs)
        initial = actors.predict_initial(*inputs) if actors.reference_moves else reference
        predictions = Predictions(
            *inputs,
            policy=actors.predict_policy(*inputs),
            reference=reference,
            initial=initial,
            logit_scale=0.5 * self._beta(batch),
            eps_scale=in_eps.repeat(2),
        )
        (m_w, m_l), (r_w, r_l), (i_w, i_l) = (
            [error * scale for error in regression_error(yhat, target).chunk(2)]
            for yhat in (predictions.policy, reference, initial)
        )
        vs_initial = PairErrors(m_w, m_l, i_w, i_l) if actors.reference_moves else None
        return PairForward(predictions, PairErrors(m_w, m_l, r_w, r_l), vs_initial)

    def _remembered(
        self,
        actors: Actors,
        batch: PairBatch,
        inputs: NoisyInputs,
        target: Latents,
        scale: Tensor,
        known: ReferenceErrors,
    ) -> PairForward:
        def ask() -> Tensor:
            return torch.stack(regression_error(actors.predict_reference(*inputs), target).chunk(2), dim=1)

        assert batch.visits is not None, "errors are remembered by the draw"
        r_w, r_l = (error * scale for error in known.of(batch.visits, ask).unbind(dim=1))
        m_w, m_l = (error * scale for error in regression_error(actors.predict_policy(*inputs), target).chunk(2))
        return PairForward(None, PairErrors(m_w, m_l, r_w, r_l), None)


def pair_metrics(errors: PairErrors, u: PerExample) -> dict[str, PerExample]:
    """Per-pair metrics of the offline methods; the trainer averages them. Half ties in `implicit_accuracy`."""
    chosen_gain = (errors.r_w - errors.m_w).detach()
    rejected_gain = (errors.r_l - errors.m_l).detach()
    return {
        "implicit_accuracy": (u > 0).float() + 0.5 * (u == 0).float(),
        "margin": u,
        "margin_unscaled": chosen_gain - rejected_gain,
        "chosen_error": errors.m_w.detach(),
        "rejected_error": errors.m_l.detach(),
        "chosen_gain": chosen_gain,
        "rejected_gain": rejected_gain,
        "winner_degraded": (chosen_gain < 0).float(),
    }


def metrics_vs_init(errors: PairErrors, beta: float) -> dict[str, PerExample]:
    """`margin` and `implicit_accuracy` against the initial model: right after a copy, u itself is 0 by construction."""
    u = preference_logit(errors.m_w, errors.m_l, errors.r_w, errors.r_l, beta).detach()
    against = pair_metrics(errors, u)
    return {
        "margin_vs_init": u,
        "accuracy_vs_init": against["implicit_accuracy"],
        "chosen_gain_vs_init": against["chosen_gain"],
        "rejected_gain_vs_init": against["rejected_gain"],
    }


def reference_distance(predictions: Predictions, num_pairs: int) -> PerExample:
    """|yhat_ref - yhat_init|^2, mean over both images of each pair."""
    return predictions.distance(predictions.reference, predictions.initial).reshape(2, num_pairs).mean(dim=0)
