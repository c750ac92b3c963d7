"""The loop that draws trajectories once an iteration and trains their steps: when it draws, and what it leaves behind."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import pytest
import torch

from alignment_core.actors.actors import Actors
from alignment_core.protocols import TimestepStrategy
from alignment_core.rollouts.replay import State, replay
from alignment_core.rollouts.setup import PendingRollouts, RolloutBatch
from alignment_core.rollouts.trajectories import Place
from alignment_core.shapes import PerStep
from alignment_core.timesteps.strategies import UniformTimesteps


@dataclass
class Counting:
    """Draws its iteration's number, and trains one row a micro-batch; a method without a network."""

    outlives_iteration: bool
    steps_per_iteration: int = 3
    accumulation: int = 2
    pending: PendingRollouts = field(default_factory=PendingRollouts)
    drawn: list[int] = field(default_factory=list)
    prompted: list[int] = field(default_factory=list)

    def rollout_batch(self, actors: Actors, iteration: int) -> RolloutBatch:
        self.prompted.append(iteration)
        return cast(RolloutBatch, iteration)

    def draw_iteration(self, rollouts: RolloutBatch, iteration: int, before: State) -> State:
        self.drawn.append(iteration)
        return {"numbers": torch.cat([before.get("numbers", torch.empty(0)), torch.tensor([float(iteration)])])}

    def places(self, drawn: State, iteration: int, position: int, wanted: PerStep | None) -> list[Place]:
        return [Place(row, position) for row in range(self.accumulation)]

    def micro_batch(
        self, rollouts: RolloutBatch, drawn: State, places: Sequence[Place], timesteps: TimestepStrategy
    ) -> tuple[Any, ...]:
        (place,) = places
        return (rollouts, place.row, place.index, drawn["numbers"].tolist())


def first(method: Counting, num: int, first_step: int = 0) -> list[tuple[Any, ...]]:
    return list(islice(replay(method, cast(Actors, None), UniformTimesteps(10), first_step), num))


def test_an_iteration_draws_once_and_every_step_trains_its_micro_batches() -> None:
    method = Counting(outlives_iteration=False)
    batches = first(method, 8)
    assert method.drawn == method.prompted == [0, 1]
    assert [(iteration, index, row) for iteration, row, index, _ in batches] == [
        *((0, position, row) for position in range(3) for row in range(2)),
        *((1, 0, row) for row in range(2)),
    ]


@pytest.mark.parametrize(("outlives", "found"), [(False, [1.0]), (True, [0.0, 1.0])])
def test_what_was_drawn_before_is_there_for_a_buffer_and_gone_for_the_others(
    outlives: bool, found: list[float]
) -> None:
    assert first(Counting(outlives_iteration=outlives), 8)[-1][-1] == found


@pytest.mark.parametrize("stopped_at", range(1, 7))
@pytest.mark.parametrize("outlives", [False, True])
def test_a_method_that_goes_on_with_what_is_pending_sees_what_an_undisturbed_one_sees(
    outlives: bool, stopped_at: int
) -> None:
    whole = first(Counting(outlives_iteration=outlives), 18)
    stopped, resumed = Counting(outlives_iteration=outlives), Counting(outlives_iteration=outlives)
    first(stopped, 2 * stopped_at)
    resumed.pending.keep(stopped_at, stopped.pending.at(stopped_at))
    assert first(resumed, 18 - 2 * stopped_at, stopped_at) == whole[2 * stopped_at :]
    assert resumed.drawn == [number for number in range(3) if number * 3 >= stopped_at]
