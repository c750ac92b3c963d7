r"""MaPO: margin-aware preference optimisation, which needs no reference model.

Hong et al., "Margin-aware Preference Optimization for Aligning Diffusion Models without Reference", arXiv 2406.06424. With m
the policy's mean squared regression error on the winner (w) and the loser (l) at one shared (t, eps),

    L = m_w - beta log sigma(T [B(kappa m_w) - B(kappa m_l)]),        B(z) = z / (e^z - 1),  B(0) = 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from alignment_core.actors.actors import Actors
from alignment_core.diffusion.formulas import regression_error
from alignment_core.methods.pair_batches import PairBatch, PairDraws, noisy_pairs
from alignment_core.protocols import StepLoss, TimestepStrategy
from alignment_core.shapes import PerExample

SERIES_BELOW = 1e-4  # z^4/720, the first term left out, is then below the rounding of float64


def likelihood_proxy(z: PerExample) -> PerExample:
    """B(z) = z / (e^z - 1) for z >= 0: falls from 1 at 0, so that a smaller error counts as more likely.

    Computed as z e^-z / (1 - e^-z), which neither divides by zero near 0 nor overflows far from it.
    """
    near = z < SERIES_BELOW
    safe = torch.where(near, torch.ones_like(z), z)
    return torch.where(near, 1 - z / 2 + z.square() / 12, safe * torch.exp(-safe) / -torch.expm1(-safe))


def likelihood_margin(m_w: PerExample, m_l: PerExample, kappa: float) -> PerExample:
    """B(kappa m_w) - B(kappa m_l); positive when the policy models the winner better than the loser."""
    return likelihood_proxy(kappa * m_w) - likelihood_proxy(kappa * m_l)


def mapo_loss(m_w: PerExample, h: PerExample, beta: float) -> PerExample:
    """m_w - beta log sigma(h): what the winner costs by itself, and what it costs to be told from the loser."""
    return m_w - beta * F.logsigmoid(h)


@dataclass(frozen=True)
class MaPO:
    """MaPO over a set of pairs: `protocols.Method[PairBatch]`. `logit_scale` is T, which lambda(t) multiplies."""

    draws: PairDraws
    beta: float
    kappa: float
    logit_scale: float

    def batches(self, actors: Actors, timesteps: TimestepStrategy, first_step: int) -> Iterator[PairBatch]:
        """Micro-batches from `first_step` on, without end."""
        return self.draws.batches(actors, timesteps, first_step)

    def loss(self, actors: Actors, batch: PairBatch) -> StepLoss:
        """The loss of each pair, float32 `[B]`; a soft label p expects the loss of either order."""
        inputs, target = noisy_pairs(actors.family, batch)
        m_w, m_l = regression_error(actors.predict_policy(*inputs), target).chunk(2)
        margin = likelihood_margin(m_w, m_l, self.kappa)
        h = batch.reward_scale * self.logit_scale * margin
        p = batch.label
        either = p * mapo_loss(m_w, h, self.beta) + (1 - p) * mapo_loss(m_l, -h, self.beta)
        per_example = torch.where(p == 1, mapo_loss(m_w, h, self.beta), either)
        metrics = {"loss": per_example.detach(), **mapo_metrics(m_w.detach(), m_l.detach(), margin.detach())}
        metrics["margin"] = self.logit_scale * metrics["margin_unscaled"]
        return StepLoss(per_example, batch.timesteps, signal=metrics["margin_unscaled"], metrics=metrics)


def mapo_metrics(m_w: PerExample, m_l: PerExample, margin: PerExample) -> dict[str, PerExample]:
    """Per-pair metrics; half ties in `implicit_accuracy`."""
    return {
        "implicit_accuracy": (margin > 0).float() + 0.5 * (margin == 0).float(),
        "margin_unscaled": margin,
        "chosen_error": m_w,
        "rejected_error": m_l,
    }
