"""The loop of the methods that draw whole trajectories and then train single steps of them, optimiser step by optimiser step."""

from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.protocols import TimestepStrategy
from alignment_core.ranks import ALONE, Ranks
from alignment_core.rollouts.setup import PendingRollouts, RolloutBatch, own_chunks, spread
from alignment_core.rollouts.trajectories import Place, Trajectories, Transitions
from alignment_core.shapes import PerExample, PerStep

B_co = TypeVar("B_co", covariant=True)

State = dict[str, Tensor]
"""What is drawn, by name, on the CPU; each tensor's rows are trajectories."""

SCORED = ("states", "log_probs", "advantage", "reward", "reward_std")


class ReplayedMethod(Protocol[B_co]):
    """What the methods that share the loop differ in."""

    @property
    def pending(self) -> PendingRollouts: ...

    @property
    def accumulation(self) -> int: ...

    @property
    def steps_per_iteration(self) -> int:
        """Optimiser steps between two draws."""
        ...

    @property
    def outlives_iteration(self) -> bool:
        """Whether the next draw is added to what was drawn before."""
        ...

    def rollout_batch(self, actors: Actors, iteration: int) -> RolloutBatch:
        """The prompts of everything that an iteration replays."""
        ...

    def draw_iteration(self, rollouts: RolloutBatch, iteration: int, before: State) -> State:
        """The trajectories of an iteration with their scores; `before` is what the last one left."""
        ...

    def places(self, drawn: State, iteration: int, position: int, wanted: PerStep | None) -> list[Place]:
        """The transitions that the optimiser step at `position` of an iteration trains, in order."""
        ...

    def micro_batch(
        self, rollouts: RolloutBatch, drawn: State, places: Sequence[Place], timesteps: TimestepStrategy
    ) -> B_co:
        """The transitions at `places`, with what the loss needs of them."""
        ...


def replay(
    method: ReplayedMethod[B_co], actors: Actors, timesteps: TimestepStrategy, first_step: int, ranks: Ranks = ALONE
) -> Iterator[B_co]:
    """This process's micro-batches from `first_step` on, without end; an iteration's trajectories are of the policy it begins with."""
    step, rollouts = first_step, None
    while True:
        iteration, position = divmod(step, method.steps_per_iteration)
        if rollouts is None or position == 0:
            rollouts = method.rollout_batch(actors, iteration)
        drawn = method.pending.at(step)
        if position == 0:
            drawn = method.draw_iteration(rollouts, iteration, drawn)
        is_last = position + 1 == method.steps_per_iteration
        method.pending.keep(step + 1, {} if is_last and not method.outlives_iteration else drawn)
        places = method.places(drawn, iteration, position, timesteps.step_probabilities)
        for numbers in own_chunks(range(len(places)), method.accumulation, ranks):
            yield method.micro_batch(rollouts, drawn, [places[number] for number in numbers], timesteps)
        step += 1


def scored(trajectories: Trajectories, reward: PerExample, advantage: PerExample) -> State:
    """Trajectories with their images' rewards, as `SCORED` names them."""
    return {
        "states": trajectories.states,
        "log_probs": trajectories.log_probs,
        "advantage": advantage,
        "reward": reward,
        "reward_std": spread(reward).clone(),
    }


def rows_of(drawn: State, names: Sequence[str], steps: Transitions) -> dict[str, PerExample]:
    """What was drawn of the trajectories that the steps belong to, on their device."""
    return {name: drawn[name][steps.rows].to(steps.x_t.device) for name in names}
