r"""D3PO: direct preference optimisation of a trajectory's steps, labelled by its image.

Yang et al., "Using Human Feedback to Fine-tune Diffusion Models without Any Reward Model", arXiv 2311.13231. Two trajectories
start from one noise; the better final image labels every step. With each trajectory's own x_t,

    rho_k = clip(exp(log pi_theta - log pi_ref), 1 - eps, 1 + eps),   L = -log sigma(beta (h_0 log rho_0 + h_1 log rho_1))

where h is (1, -1) if trajectory 0 is better, (-1, 1) if trajectory 1 is, and (0, 0) for a tie, which has no gradient.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.diffusion.formulas import Reduction, beta_of_means
from alignment_core.protocols import StepLoss, TimestepStrategy
from alignment_core.rollouts.replay import State, replay, rows_of
from alignment_core.rollouts.rollout import log_prob, preference
from alignment_core.rollouts.setup import (
    PendingRollouts,
    RolloutBatch,
    RolloutSetup,
    accuracy,
    metrics_vs_init,
    reference_metrics,
    spread,
)
from alignment_core.rollouts.trajectories import (
    Place,
    Trajectories,
    Transitions,
    both,
    draw_branches,
    judge,
    shuffled_places,
    trained_share,
    transitions,
)
from alignment_core.shapes import Latents, PerExample, PerStep

# --- the loss ------------------------------------------------------------------------------------------------------


def clamped_log_ratio(log_ratio: PerExample, ratio_clamp: float) -> PerExample:
    """log clip(e^l, 1 - eps, 1 + eps), clamped as l so that no e^l overflows; no gradient outside."""
    return log_ratio.clamp(math.log1p(-ratio_clamp), math.log1p(ratio_clamp))


def d3po_logit(
    log_ratio_0: PerExample, log_ratio_1: PerExample, h: PerExample, beta: float | PerExample, ratio_clamp: float
) -> PerExample:
    """beta h (log rho_0 - log rho_1) with h = 1 where trajectory 0 is better, -1 where 1 is, 0 for a tie."""
    return beta * h * (clamped_log_ratio(log_ratio_0, ratio_clamp) - clamped_log_ratio(log_ratio_1, ratio_clamp))


# --- the batch -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrajectoryPairs:
    """Steps of pairs of trajectories; both members of a pair are at the same step. `h` as in `d3po_logit`."""

    of_0: Transitions
    of_1: Transitions
    h: PerExample
    reward_scale: PerExample
    metrics: dict[str, PerExample]


# --- the method ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class D3PO:
    """D3PO over a set of prompts: `protocols.Method[TrajectoryPairs]`.

    An iteration draws a pair of trajectories for each of `num_prompts` prompts and trains `num_trained_steps` steps of each
    pair, in an order of its own, in optimiser steps of `batch_size` x `accumulation` transitions.
    """

    setup: RolloutSetup
    beta: float
    reduction: Reduction
    ratio_clamp: float
    num_prompts: int
    num_trained_steps: int
    batch_size: int
    accumulation: int
    pending: PendingRollouts = field(default_factory=PendingRollouts)

    @property
    def steps_per_iteration(self) -> int:
        """Optimiser steps between two draws."""
        return self.num_prompts * self.num_trained_steps // self._examples_per_step

    @property
    def _examples_per_step(self) -> int:
        return self.batch_size * self.accumulation * self.setup.ranks.count

    @property
    def outlives_iteration(self) -> bool:
        return False

    def trained_share(self, wanted: PerStep | None) -> PerStep:
        """How often each step is among those that train."""
        return trained_share(self.setup.grid, self.num_trained_steps, wanted)

    def batches(self, actors: Actors, timesteps: TimestepStrategy, first_step: int) -> Iterator[TrajectoryPairs]:
        """Micro-batches from `first_step` on, without end; an iteration's trajectories are of the policy it begins with."""
        return replay(self, actors, timesteps, first_step, self.setup.ranks)

    def rollout_batch(self, actors: Actors, iteration: int) -> RolloutBatch:
        return self.setup.rollout_batch(actors, iteration, self.num_prompts)

    def places(self, drawn: State, iteration: int, position: int, wanted: PerStep | None) -> list[Place]:
        num, grid, seed = self._examples_per_step, self.setup.grid, self.setup.seed
        order = shuffled_places(self.num_prompts, grid.trainable, self.num_trained_steps, seed, iteration, wanted)
        return order[position * num : (position + 1) * num]

    def micro_batch(
        self, rollouts: RolloutBatch, drawn: State, places: Sequence[Place], timesteps: TimestepStrategy
    ) -> TrajectoryPairs:
        of_0, of_1 = (transitions(rollouts, _trajectories(drawn, name), places) for name in ("0", "1"))
        scores = rows_of(drawn, ("h", "reward", "reward_std"), of_0)
        h = scores.pop("h")
        scale = timesteps.reward_scale(of_0.timesteps.cpu()).to(of_0.x_t.device)
        return TrajectoryPairs(of_0, of_1, h, scale, {**scores, "tie_rate": (h == 0).float()})

    def loss(self, actors: Actors, batch: TrajectoryPairs) -> StepLoss:
        """The loss of each pair's step, float32 `[B]`; ties stay in, at ln 2 and without gradient."""
        steps = both(batch.of_0, batch.of_1)  # in one forward
        logit_scale = beta_of_means(self.beta, steps.x_t, self.reduction)
        predictions = steps.rollouts.predictions(steps.rows, steps.x_t, steps.index, logit_scale=logit_scale)
        (ratio_0, ratio_1), (moved_0, moved_1) = (
            values.chunk(2) for values in self._log_ratios(steps, predictions.policy, predictions.reference)
        )
        beta = self.beta * batch.reward_scale
        per_example = -F.logsigmoid(d3po_logit(ratio_0, ratio_1, batch.h, beta, self.ratio_clamp))
        margin = (batch.h * (ratio_0 - ratio_1)).detach()
        outside = [(ratio.detach().expm1().abs() > self.ratio_clamp).float() for ratio in (ratio_0, ratio_1)]
        metrics = {
            "loss": per_example.detach(),
            "implicit_accuracy": accuracy(margin),
            "margin": self.beta * margin,
            "margin_unscaled": margin,
            "clamped": 0.5 * (outside[0] + outside[1]),
            "mean_shift": 0.5 * (moved_0 + moved_1),
            "kl": 0.25 * (moved_0.square() + moved_1.square()),
            **batch.metrics,
        }
        vs_initial = None
        if actors.reference_moves:
            init_0, init_1 = self._log_ratios(steps, predictions.policy.detach(), predictions.initial)[0].chunk(2)
            vs_initial = batch.h * (init_0 - init_1)
            metrics |= metrics_vs_init(vs_initial, self.beta) | reference_metrics(predictions, len(margin))
        return StepLoss(
            per_example, batch.of_0.timesteps, margin, metrics, signal_vs_initial=vs_initial, predictions=predictions
        )

    def state_at(self, step: int) -> dict[str, Tensor]:
        """The iteration's trajectories and labels; nothing between iterations."""
        return self.pending.at(step)

    def load_state_at(self, step: int, state: dict[str, Tensor]) -> None:
        """Put back what `state_at` gave; raises `CheckpointError` where trajectories under way are missing."""
        self.pending.restore(step, state, needed=_STATE if step % self.steps_per_iteration else ())

    def draw_iteration(self, rollouts: RolloutBatch, iteration: int, before: State) -> State:
        first, second = draw_branches(rollouts, 2, batch_size=self.batch_size)
        r_0, r_1 = (judge(rollouts, drawn.x_0, batch_size=self.batch_size) for drawn in (first, second))
        return {
            **_tensors(first, "0"),
            **_tensors(second, "1"),
            "h": preference(r_0, r_1),
            "reward": 0.5 * (r_0[0] + r_1[0]),
            "reward_std": spread(torch.cat([r_0[0], r_1[0]]))[: len(r_0[0])].clone(),
        }

    def _log_ratios(self, steps: Transitions, policy: Latents, other: Latents) -> tuple[PerExample, PerExample]:
        """log pi_theta - log pi_other, and |mu_theta - mu_other| / sigma (root mean square)."""
        grid, index = self.setup.grid, steps.index
        ratio = log_prob(grid, steps.x_prev, steps.x_t, policy, index, self.reduction) - log_prob(
            grid, steps.x_prev, steps.x_t, other, index, self.reduction
        )
        gap = (grid.mean(steps.x_t, policy, index) - grid.mean(steps.x_t, other, index)).detach()
        return ratio, gap.flatten(1).square().mean(dim=1).sqrt() / grid.sigma(index, steps.x_t)


_STATE = ("states_0", "log_probs_0", "states_1", "log_probs_1", "h", "reward", "reward_std")


def _tensors(drawn: Trajectories, name: str) -> dict[str, Tensor]:
    return {f"states_{name}": drawn.states, f"log_probs_{name}": drawn.log_probs}


def _trajectories(state: dict[str, Tensor], name: str) -> Trajectories:
    return Trajectories(state[f"states_{name}"], state[f"log_probs_{name}"])
