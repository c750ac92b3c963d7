r"""DDPO: policy gradient over the denoising steps, with the clipped ratio of PPO.

Black et al., "Training Diffusion Models with Reinforcement Learning", arXiv 2305.13301. With A the normalised reward of the final
image and rho the ratio of the policy to the one that drew,

    L = max(-A rho, -A clip(rho, 1 - c, 1 + c)),        rho = exp(log pi_theta - log pi_old)

per step of a trajectory. There is no reference model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.protocols import StepLoss, TimestepStrategy
from alignment_core.rollouts.rollout import log_prob
from alignment_core.rollouts.setup import PendingRollouts, RolloutBatch, RolloutSetup, chunks, spread
from alignment_core.rollouts.trajectories import (
    Trajectories,
    Transitions,
    draw,
    judge,
    shuffled_places,
    trained_share,
    transitions,
)
from alignment_core.shapes import PerExample, PerStep

# --- the loss ------------------------------------------------------------------------------------------------------


def advantages(rewards: PerExample, groups: Sequence[int] | None = None, eps: float = 1e-8) -> PerExample:
    """(r - mean) / (std + eps) with the population's standard deviation, over all or within each group."""
    if groups is None:
        return (rewards - rewards.mean()) / (rewards.std(unbiased=False) + eps)
    members, result = torch.tensor(groups), torch.empty_like(rewards)
    for group in set(groups):
        own = members == group
        result[own] = advantages(rewards[own], eps=eps)
    return result


def clipped_surrogate(log_ratio: PerExample, advantage: PerExample, ratio_clamp: float) -> PerExample:
    """max(-A rho, -A clip(rho, 1 - c, 1 + c)): no gradient once a step has gone c in the wanted direction."""
    rho = log_ratio.exp()
    return torch.maximum(-advantage * rho, -advantage * rho.clamp(1 - ratio_clamp, 1 + ratio_clamp))


# --- the method ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WeighedSteps:
    """Steps of trajectories with the advantage of their images."""

    steps: Transitions
    advantage: PerExample
    metrics: dict[str, PerExample]


@dataclass(frozen=True)
class DDPO:
    """DDPO over a set of prompts: `protocols.Method[WeighedSteps]`.

    An iteration draws `num_copies` trajectories for each of `num_prompts` prompts and trains `num_trained_steps` steps of each
    once, in an order of its own, in optimiser steps of `batch_size` x `accumulation` transitions.
    """

    setup: RolloutSetup
    ratio_clamp: float
    advantage_clip: float
    within_prompts: bool
    num_prompts: int
    num_copies: int
    num_trained_steps: int
    batch_size: int
    accumulation: int
    pending: PendingRollouts = field(default_factory=PendingRollouts)

    @property
    def num_trajectories(self) -> int:
        return self.num_prompts * self.num_copies

    @property
    def steps_per_iteration(self) -> int:
        """Optimiser steps between two draws."""
        return self.num_trajectories * self.num_trained_steps // (self.batch_size * self.accumulation)

    def trained_share(self, wanted: PerStep | None) -> PerStep:
        """How often each step is among those that train."""
        return trained_share(self.setup.grid, self.num_trained_steps, wanted)

    def batches(self, actors: Actors, timesteps: TimestepStrategy, first_step: int) -> Iterator[WeighedSteps]:
        """Micro-batches from `first_step` on, without end; an iteration's trajectories are of the policy it begins with."""
        step, rollouts = first_step, None
        while True:
            iteration, position = divmod(step, self.steps_per_iteration)
            if rollouts is None or position == 0:
                rollouts = self.setup.rollout_batch(actors, iteration, self.num_prompts, self.num_copies)
            drawn = self._draw(rollouts) if position == 0 else self.pending.at(step)
            self.pending.keep(step + 1, drawn if position + 1 < self.steps_per_iteration else {})
            num = self.batch_size * self.accumulation
            places = shuffled_places(
                self.num_trajectories,
                self.setup.grid.trainable,
                self.num_trained_steps,
                self.setup.seed,
                iteration,
                timesteps.step_probabilities,
            )[position * num : (position + 1) * num]
            trajectories = Trajectories(drawn["states"], drawn["log_probs"])
            for numbers in chunks(range(num), self.accumulation):
                steps = transitions(rollouts, trajectories, [places[number] for number in numbers])
                of = {
                    name: drawn[name][steps.rows].to(steps.x_t.device) for name in ("advantage", "reward", "reward_std")
                }
                yield WeighedSteps(steps, of.pop("advantage"), of)
            step += 1

    def loss(self, actors: Actors, batch: WeighedSteps) -> StepLoss:
        """The loss of each step, float32 `[B]`."""
        steps = batch.steps
        policy = steps.rollouts.policy(steps.rows)(steps.x_t, steps.timesteps)
        log_ratio = log_prob(self.setup.grid, steps.x_prev, steps.x_t, policy, steps.index) - steps.log_prob
        per_example = clipped_surrogate(log_ratio, batch.advantage, self.ratio_clamp)
        metrics = {"loss": per_example.detach(), **ratio_metrics(log_ratio.detach(), self.ratio_clamp), **batch.metrics}
        return StepLoss(per_example, steps.timesteps, signal=batch.advantage, metrics=metrics)

    def state_at(self, step: int) -> dict[str, Tensor]:
        """The iteration's trajectories and advantages; nothing between iterations."""
        return self.pending.at(step)

    def load_state_at(self, step: int, state: dict[str, Tensor]) -> None:
        """Put back what `state_at` gave; raises `CheckpointError` where trajectories under way are missing."""
        needed = ("states", "log_probs", "advantage", "reward", "reward_std")
        self.pending.restore(step, state, needed=needed if step % self.steps_per_iteration else ())

    def _draw(self, rollouts: RolloutBatch) -> dict[str, Tensor]:
        drawn = draw(rollouts, batch_size=self.batch_size)
        (reward,) = judge(rollouts, drawn.x_0, batch_size=self.batch_size)
        groups = [row // self.num_copies for row in range(self.num_trajectories)] if self.within_prompts else None
        advantage = advantages(reward, groups, eps=1e-6 if self.within_prompts else 1e-8)
        return {
            "states": drawn.states,
            "log_probs": drawn.log_probs,
            "advantage": advantage.clamp(-self.advantage_clip, self.advantage_clip),
            "reward": reward,
            "reward_std": spread(reward).clone(),
        }


def ratio_metrics(log_ratio: Float[Tensor, " batch"], ratio_clamp: float) -> dict[str, PerExample]:
    """`approx_kl` = (log rho)^2 / 2 against the policy that drew, `ratio`, and the share outside the clamp."""
    ratio = log_ratio.exp()
    return {
        "approx_kl": 0.5 * log_ratio.square(),
        "ratio": ratio,
        "clamped": ((ratio - 1).abs() > ratio_clamp).float(),
    }
