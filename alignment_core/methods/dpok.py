r"""DPOK: policy gradient with a hard clamp and a leash in the space of the network's prediction.

Fan et al., "DPOK: Reinforcement Learning for Fine-tuning Text-to-Image Diffusion Models", arXiv 2305.16381. Per step of a trajectory

    L = -w_r A clip(rho, 1 - c, 1 + c) + w_kl mean (eps_theta - eps_ref)^2,        rho = exp(log pi_theta - log pi_old)

with guided predictions. There is no maximum as in PPO: outside the clamp the policy gradient is zero for either sign of A. A is
the reward, or the reward less a baseline, of which the paper's is a value network.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, assert_never

import torch
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.diffusion.formulas import regression_error
from alignment_core.methods.ddpo import ratio_metrics
from alignment_core.methods.value_network import PREFIX, States, ValueNetwork
from alignment_core.protocols import StepLoss, TimestepStrategy
from alignment_core.rollouts.replay import SCORED, State, replay, rows_of, scored
from alignment_core.rollouts.rollout import log_prob
from alignment_core.rollouts.setup import PendingRollouts, RolloutBatch, RolloutSetup, reference_metrics
from alignment_core.rollouts.trajectories import (
    Place,
    Trajectories,
    Transitions,
    draw,
    drawn_places,
    judge,
    trained_share,
    transitions,
)
from alignment_core.seeds import permutation_of
from alignment_core.shapes import PerExample, PerStep

# --- the loss ------------------------------------------------------------------------------------------------------


def clamped_policy_gradient(log_ratio: PerExample, advantage: PerExample, ratio_clamp: float) -> PerExample:
    """-A clip(rho, 1 - c, 1 + c); no gradient outside the clamp. The logarithm is clamped: exp would overflow, and 0 inf is no gradient."""
    return -advantage * log_ratio.clamp(math.log1p(-ratio_clamp), math.log1p(ratio_clamp)).exp()


def dpok_loss(
    log_ratio: PerExample,
    advantage: PerExample,
    kl: PerExample,
    *,
    ratio_clamp: float,
    reward_weight: float,
    kl_weight: float,
) -> PerExample:
    """-w_r A clip(rho) + w_kl kl."""
    return reward_weight * clamped_policy_gradient(log_ratio, advantage, ratio_clamp) + kl_weight * kl


# --- the method ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ReplayedSteps:
    """Steps of trajectories with the advantage of their images, and lambda(t), which multiplies both terms of the loss."""

    steps: Transitions
    advantage: PerExample
    reward_scale: PerExample
    metrics: dict[str, PerExample]


@dataclass(frozen=True)
class DPOK:
    """DPOK over a set of prompts: `protocols.Method[ReplayedSteps]`.

    An iteration draws `num_copies` trajectories for each of `num_prompts` prompts into a buffer of the last `buffer_iterations`, and takes
    `updates` optimiser steps of `batch_size` x `accumulation` transitions, each drawn from the buffer without replacement.
    """

    setup: RolloutSetup
    ratio_clamp: float
    reward_weight: float
    kl_weight: float
    baseline: Literal["none", "batch", "prompt"] | ValueNetwork
    num_prompts: int
    num_copies: int
    updates: int
    buffer_iterations: int
    batch_size: int
    accumulation: int
    pending: PendingRollouts = field(default_factory=PendingRollouts)

    def trained_share(self, wanted: PerStep | None) -> PerStep:
        """How often each step is among those that train, once the buffer is full."""
        rows = self.num_prompts * self.num_copies * self.buffer_iterations
        return trained_share(self.setup.grid, self._examples_per_step, wanted, rows)

    @property
    def steps_per_iteration(self) -> int:
        """Optimiser steps between two draws."""
        return self.updates

    @property
    def _examples_per_step(self) -> int:
        return self.batch_size * self.accumulation * self.setup.ranks.count

    @property
    def outlives_iteration(self) -> bool:
        """The buffer is of several iterations; every draw keeps the log-probability of the policy that made it."""
        return True

    def batches(self, actors: Actors, timesteps: TimestepStrategy, first_step: int) -> Iterator[ReplayedSteps]:
        """Micro-batches from `first_step` on, without end."""
        return replay(self, actors, timesteps, first_step, self.setup.ranks)

    def rollout_batch(self, actors: Actors, iteration: int) -> RolloutBatch:
        """The prompts of every trajectory in the buffer."""
        first = max(0, iteration - self.buffer_iterations + 1)
        prompts = [
            prompt
            for number in range(first, iteration + 1)
            for prompt in self.setup.prompts_of(number, self.num_prompts)
            for _ in range(self.num_copies)
        ]
        return self.setup.rollout_batch_of(actors, iteration, prompts)

    def places(self, drawn: State, iteration: int, position: int, wanted: PerStep | None) -> list[Place]:
        num, grid, seed = self._examples_per_step, self.setup.grid, self.setup.seed
        return drawn_places(len(drawn["reward"]), grid.trainable, num, seed, iteration, position, wanted)

    def micro_batch(
        self, rollouts: RolloutBatch, drawn: State, places: Sequence[Place], timesteps: TimestepStrategy
    ) -> ReplayedSteps:
        steps = transitions(rollouts, Trajectories(drawn["states"], drawn["log_probs"]), places)
        scores = rows_of(drawn, ("advantage", "reward", "reward_std"), steps)
        advantage = scores.pop("advantage")
        if isinstance(self.baseline, ValueNetwork):
            value = self.baseline.values(drawn, _states(steps))
            scores |= {"value": value, "value_error": (scores["reward"] - value).square()}
            advantage = advantage - value
        scale = timesteps.reward_scale(steps.timesteps.cpu()).to(steps.x_t.device)
        return ReplayedSteps(steps, advantage, scale, scores)

    def loss(self, actors: Actors, batch: ReplayedSteps) -> StepLoss:
        """The loss of each step, float32 `[B]`."""
        steps, grid = batch.steps, self.setup.grid
        predictions = steps.rollouts.predictions(steps.rows, steps.x_t, steps.index, logit_scale=1.0)
        log_ratio = log_prob(grid, steps.x_prev, steps.x_t, predictions.policy, steps.index) - steps.log_prob
        eps, eps_ref = (grid.eps(steps.x_t, yhat, steps.index) for yhat in (predictions.policy, predictions.reference))
        kl = regression_error(eps, eps_ref)
        per_example = batch.reward_scale * dpok_loss(
            log_ratio,
            batch.advantage,
            kl,
            ratio_clamp=self.ratio_clamp,
            reward_weight=self.reward_weight,
            kl_weight=self.kl_weight,
        )
        metrics = {
            "loss": per_example.detach(),
            "kl": kl.detach(),
            **ratio_metrics(log_ratio.detach(), self.ratio_clamp),
            **batch.metrics,
        }
        if actors.reference_moves:
            metrics |= reference_metrics(predictions, len(kl))
        return StepLoss(per_example, steps.timesteps, batch.advantage, metrics, predictions=predictions)

    def state_at(self, step: int) -> dict[str, Tensor]:
        """The buffer."""
        return self.pending.at(step)

    def load_state_at(self, step: int, state: dict[str, Tensor]) -> None:
        """Put back what `state_at` gave; raises `CheckpointError` where the buffer is missing."""
        value = (f"{PREFIX}text.weight",) if isinstance(self.baseline, ValueNetwork) else ()
        self.pending.restore(step, state, needed=(*SCORED, *value) if step else ())

    def draw_iteration(self, rollouts: RolloutBatch, iteration: int, before: State) -> State:
        """The buffer with this iteration's trajectories and without those that are too old; `rollouts` is of all of them."""
        own = self.setup.rollout_batch(rollouts.actors, iteration, self.num_prompts, self.num_copies)
        trajectories = draw(own, batch_size=self.batch_size)
        (reward,) = judge(own, trajectories.x_0, batch_size=self.batch_size)
        drawn = scored(trajectories, reward, reward - self._baseline_of(reward))
        room = (self.buffer_iterations - 1) * self.num_prompts * self.num_copies
        filled = {name: torch.cat([before[name][-room:], drawn[name]]) for name in drawn} if before and room else drawn
        if not isinstance(self.baseline, ValueNetwork):
            return filled
        return {**filled, **self._fit(self.baseline, rollouts, iteration, filled, before)}

    def _fit(
        self,
        network: ValueNetwork,
        rollouts: RolloutBatch,
        iteration: int,
        filled: dict[str, Tensor],
        before: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        """The value network's state after its step of this iteration, on transitions drawn without replacement."""
        trajectories, num_steps = Trajectories(filled["states"], filled["log_probs"]), len(self.setup.grid)
        order = permutation_of(len(filled["reward"]) * num_steps, self.setup.seed, "value", iteration)
        places = [Place(*divmod(number, num_steps)) for number in order[: network.batch_size * network.num_batches]]
        parts = [places[start : start + network.batch_size] for start in range(0, len(places), network.batch_size)]
        steps = [transitions(rollouts, trajectories, part) for part in parts]
        batches = [(_states(part), filled["reward"][part.rows].to(part.x_t.device)) for part in steps]
        state = {name: value for name, value in before.items() if name.startswith(PREFIX)}
        # In one process: what a GPU adds up in another order must not tell the processes apart.
        return self.setup.ranks.of_first(lambda: network.fit(state or network.begin(batches[0][0]), batches))

    def _baseline_of(self, reward: PerExample) -> PerExample:
        """What is known of a trajectory once it is drawn; a value network is asked later, state by state."""
        match self.baseline:
            case "none" | ValueNetwork():
                return torch.zeros_like(reward)
            case "batch":
                return reward.mean().expand_as(reward)
            case "prompt":
                means = reward.reshape(self.num_prompts, self.num_copies).mean(dim=1)
                return means.repeat_interleave(self.num_copies)
            case _:
                assert_never(self.baseline)


def _states(steps: Transitions) -> States:
    """What the value network is shown of a prompt is the initial model's reading of it, which never changes."""
    conditioning = steps.rollouts.conditioning_of(steps.rows)
    return States(steps.x_t, steps.timesteps, steps.rollouts.actors.read_by_initial(conditioning))
