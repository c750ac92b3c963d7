r"""DDPO: policy gradient over the denoising steps, with the clipped ratio of PPO.

Black et al., "Training Diffusion Models with Reinforcement Learning", arXiv 2305.13301. With A the normalised reward of the final
image and rho the ratio of the policy to the one that drew,

    L = max(-A rho, -A clip(rho, 1 - c, 1 + c)),        rho = exp(log pi_theta - log pi_old)

per step of a trajectory. There is no reference model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.protocols import StepLoss, TimestepStrategy
from alignment_core.rollouts.replay import SCORED, State, replay, rows_of, scored
from alignment_core.rollouts.rollout import log_prob
from alignment_core.rollouts.setup import PendingRollouts, RolloutBatch, RolloutSetup
from alignment_core.rollouts.trajectories import (
    Place,
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
    within: Literal["batch", "prompt"]
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
        return self.num_trajectories * self.num_trained_steps // self._examples_per_step

    @property
    def _examples_per_step(self) -> int:
        return self.batch_size * self.accumulation * self.setup.ranks.count

    @property
    def outlives_iteration(self) -> bool:
        return False

    def trained_share(self, wanted: PerStep | None) -> PerStep:
        """How often each step is among those that train."""
        return trained_share(self.setup.grid, self.num_trained_steps, wanted)

    def batches(self, actors: Actors, timesteps: TimestepStrategy, first_step: int) -> Iterator[WeighedSteps]:
        """Micro-batches from `first_step` on, without end; an iteration's trajectories are of the policy it begins with."""
        return replay(self, actors, timesteps, first_step, self.setup.ranks)

    def rollout_batch(self, actors: Actors, iteration: int) -> RolloutBatch:
        return self.setup.rollout_batch(actors, iteration, self.num_prompts, self.num_copies)

    def places(self, drawn: State, iteration: int, position: int, wanted: PerStep | None) -> list[Place]:
        num, grid, seed = self._examples_per_step, self.setup.grid, self.setup.seed
        order = shuffled_places(self.num_trajectories, grid.trainable, self.num_trained_steps, seed, iteration, wanted)
        return order[position * num : (position + 1) * num]

    def micro_batch(
        self, rollouts: RolloutBatch, drawn: State, places: Sequence[Place], timesteps: TimestepStrategy
    ) -> WeighedSteps:
        steps = transitions(rollouts, Trajectories(drawn["states"], drawn["log_probs"]), places)
        scores = rows_of(drawn, ("advantage", "reward", "reward_std"), steps)
        return WeighedSteps(steps, scores.pop("advantage"), scores)

    def loss(self, actors: Actors, batch: WeighedSteps) -> StepLoss:
        """The loss of each step, float32 `[B]`."""
        steps = batch.steps
        times = self.setup.grid.time(steps.index, steps.x_t)
        policy = steps.rollouts.policy(steps.rows)(steps.x_t, times)
        log_ratio = log_prob(self.setup.grid, steps.x_prev, steps.x_t, policy, steps.index) - steps.log_prob
        per_example = clipped_surrogate(log_ratio, batch.advantage, self.ratio_clamp)
        metrics = {"loss": per_example.detach(), **ratio_metrics(log_ratio.detach(), self.ratio_clamp), **batch.metrics}
        return StepLoss(per_example, steps.timesteps, signal=batch.advantage, metrics=metrics)

    def state_at(self, step: int) -> dict[str, Tensor]:
        """The iteration's trajectories and advantages; nothing between iterations."""
        return self.pending.at(step)

    def load_state_at(self, step: int, state: dict[str, Tensor]) -> None:
        """Put back what `state_at` gave; raises `CheckpointError` where trajectories under way are missing."""
        self.pending.restore(step, state, needed=SCORED if step % self.steps_per_iteration else ())

    def draw_iteration(self, rollouts: RolloutBatch, iteration: int, before: State) -> State:
        drawn = draw(rollouts, batch_size=self.batch_size)
        (reward,) = judge(rollouts, drawn.x_0, batch_size=self.batch_size)
        advantage = self._advantages(reward).clamp(-self.advantage_clip, self.advantage_clip)
        return scored(drawn, reward, advantage)

    def _advantages(self, reward: PerExample) -> PerExample:
        match self.within:
            case "batch":
                return advantages(reward)
            case "prompt":
                groups = [row // self.num_copies for row in range(self.num_trajectories)]
                return advantages(reward, groups, eps=1e-6)
            case _:
                assert_never(self.within)


def ratio_metrics(log_ratio: Float[Tensor, " batch"], ratio_clamp: float) -> dict[str, PerExample]:
    """`approx_kl` = (log rho)^2 / 2 against the policy that drew, `ratio`, and the share outside the clamp."""
    ratio = log_ratio.exp()
    return {
        "approx_kl": 0.5 * log_ratio.square(),
        "ratio": ratio,
        "clamped": ((ratio - 1).abs() > ratio_clamp).float(),
    }
