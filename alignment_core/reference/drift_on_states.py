"""How far the reference of an online method has drifted, measured where the method works: on states of trajectories.

    eps_dist  D = mean |yhat_ref - yhat_init|^2       guided predictions; never negative

The states are those of the initial model's own guided trajectories, drawn once from the run's seed, so that successive values
compare: state `i` belongs to a trajectory of its own, and the states are spread evenly over the steps. There are no winners, so
there is no `mse_gap`. All of this is ours.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from alignment_core.actors.actors import Actors
from alignment_core.actors.reference_weights import Weights
from alignment_core.diffusion.formulas import regression_error
from alignment_core.reference.drift_on_winners import DriftKind
from alignment_core.rollouts.rollout import walk
from alignment_core.rollouts.setup import RolloutBatch, RolloutSetup
from alignment_core.seeds import seed_of
from alignment_core.shapes import Latents, PerExample, Times


@dataclass(frozen=True)
class StateProbe:
    """States with the prompts they belong to, as rows of a rollout batch, and what the initial model says to them."""

    rows: Sequence[int]
    x_t: Latents
    times: Times
    initial: Latents
    eps_scale: PerExample


@dataclass(frozen=True)
class DriftOnStates:
    """`DriftMeasure` of an online method on `num` states; nothing is drawn before it is first asked."""

    setup: RolloutSetup
    actors: Actors
    num: int
    batch_size: int
    kind: DriftKind = "eps_dist"

    def of(self, weights: Weights | None) -> float:
        return self._mean(lambda probe: self._one(probe, weights))

    def unit(self) -> float:
        return self._mean(
            lambda probe: probe.eps_scale * regression_error(probe.initial, torch.zeros_like(probe.initial))
        )

    def _mean(self, measure: Callable[[StateProbe], PerExample]) -> float:
        """Over all states, of which each process measures those of some batches."""
        numbers = range(self.num)
        parts = [numbers[start : start + self.batch_size] for start in numbers[:: self.batch_size]]
        values = self.setup.ranks.in_turn(parts, lambda rows: measure(self._probe(rows)).cpu())
        return torch.cat(list(values)).double().mean().item()

    def _probe(self, rows: range) -> StateProbe:
        if rows not in self._probes:
            self._probes[rows] = self._drawn(rows)
        return self._probes[rows]

    @torch.no_grad()
    def _one(self, probe: StateProbe, weights: Weights | None) -> PerExample:
        moved = self._rollouts.model_with(weights, probe.rows)(probe.x_t, probe.times)
        return probe.eps_scale * regression_error(moved, probe.initial)

    @cached_property
    def _rollouts(self) -> RolloutBatch:
        """Prompts and noise of their own: those of no iteration."""
        return replace(self.setup, seed=seed_of(self.setup.seed, "guard")).rollout_batch(self.actors, 0, self.num)

    @cached_property
    def _probes(self) -> dict[range, StateProbe]:
        """Those that this process was asked for."""
        return {}

    def _drawn(self, rows: range) -> StateProbe:
        """Every process walks as far: with sharded weights a step is something that all do together."""
        steps = _steps(range(self.num), self.num, len(self.setup.grid))
        walked = max(steps) if self.setup.ranks.count > 1 else max(steps[row] for row in rows)
        return _probe(self._rollouts, rows, [steps[row] for row in rows], walked)


def _steps(numbers: Sequence[int], num: int, num_steps: int) -> list[int]:
    """The step of each state: the middle of its `num`-th of the trajectory, so that neighbours walk equally far."""
    return [(2 * number + 1) * num_steps // (2 * num) for number in numbers]


@torch.no_grad()
def _probe(rollouts: RolloutBatch, rows: Sequence[int], steps: Sequence[int], walked: int) -> StateProbe:
    predict, start = rollouts.initial(rows), rollouts.start(rows)
    drawn = walk(
        rollouts.setup.grid, predict, start, lambda index: rollouts.draws.noise(rows, index), first=0, last=walked
    )
    states = [start, *drawn.states]
    x_t = torch.stack([states[step][place] for place, step in enumerate(steps)])
    grid, at = rollouts.setup.grid, torch.tensor(steps)
    times = grid.time(at, x_t)
    return StateProbe(rows, x_t, times, predict(x_t, times), grid.eps_scale(at, x_t))
