"""Whole trajectories, and which of their steps an optimiser step trains: for methods that judge the final image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from alignment_core.diffusion.path import Grid, Indices
from alignment_core.rollouts.rollout import index_of, walk
from alignment_core.rollouts.setup import RolloutBatch
from alignment_core.rollouts.step_choice import draw_items, inclusion_probabilities
from alignment_core.seeds import generator_of
from alignment_core.shapes import Latents, PerExample, PerStep, Timesteps


@dataclass(frozen=True)
class Trajectories:
    """States `[B, T+1, C, h, w]` from noise to image, log-probabilities `[B, T]` of the policy that drew, on the CPU."""

    states: Float[Tensor, "batch states channels h w"]
    log_probs: Float[Tensor, "batch steps"]

    @property
    def x_0(self) -> Latents:
        return self.states[:, -1]


def draw(rollouts: RolloutBatch, *, batch_size: int) -> Trajectories:
    """One trajectory for each prompt of the batch.

    The processes draw `batch_size` of them in turn, and each has all in the end.
    """
    (drawn,) = draw_branches(rollouts, 1, batch_size=batch_size)
    return drawn


def draw_branches(rollouts: RolloutBatch, num: int, *, batch_size: int) -> list[Trajectories]:
    """`num` trajectories for each prompt, which share x_T, and so what the policy says to it, and nothing else."""
    rows = list(range(len(rollouts.prompts)))
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    drawn = list(rollouts.setup.ranks.in_turn(parts, lambda part: _draw(rollouts, part, num)))
    return [join(of_branch) for of_branch in zip(*drawn, strict=True)]


@torch.no_grad()
def _draw(rollouts: RolloutBatch, rows: Sequence[int], num: int) -> list[Trajectories]:
    grid, predict, start = rollouts.setup.grid, rollouts.drawing(rows), rollouts.start(rows)
    prediction = predict(start, grid.time(index_of(0, start), start))
    return [_branch(rollouts, rows, start, prediction, branch) for branch in range(num)]


def _branch(
    rollouts: RolloutBatch, rows: Sequence[int], start: Latents, prediction: Latents, branch: int
) -> Trajectories:
    grid = rollouts.setup.grid
    drawn = walk(
        grid,
        rollouts.drawing(rows),
        start,
        lambda index: rollouts.draws.noise(rows, index, branch),
        first=0,
        last=len(grid),
        prediction=prediction,
    )
    states, log_probs = torch.stack([start, *drawn.states], dim=1), torch.stack(drawn.log_probs, dim=1)
    return Trajectories(states.cpu(), log_probs.cpu())


def join(parts: Sequence[Trajectories]) -> Trajectories:
    """All trajectories of `parts`, in order."""
    return Trajectories(torch.cat([part.states for part in parts]), torch.cat([part.log_probs for part in parts]))


@torch.no_grad()
def judge(rollouts: RolloutBatch, x_0: Latents, *, batch_size: int) -> Float[Tensor, "rewards batch"]:
    """Scores of the final images, on the CPU; the processes judge `batch_size` of them in turn."""
    rows = list(range(len(x_0)))
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    device = rollouts.actors.family.device
    scored = rollouts.setup.ranks.in_turn(parts, lambda part: rollouts.judge(x_0[part].to(device), part).cpu())
    return torch.cat(list(scored), dim=1)


# --- which transitions are trained ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Step `index` of trajectory `row`."""

    row: int
    index: int


def shuffled_places(
    num_rows: int, trainable: Sequence[int], num_each: int, seed: int, iteration: int, wanted: PerStep | None
) -> list[Place]:
    """`num_each` steps of every trajectory in an order of its own: first one step of each, then another of each, ...

    Steps are drawn in proportion to `wanted` (of all T), or uniformly.
    """
    draws = [generator_of(seed, "replay", iteration, row) for row in range(num_rows)]
    if wanted is None:
        orders = [torch.randperm(len(trainable), generator=draw).tolist() for draw in draws]
    else:
        orders = [draw_items(wanted[list(trainable)], num_each, draw) for draw in draws]
    return [Place(row, trainable[orders[row][turn]]) for turn in range(num_each) for row in range(num_rows)]


def drawn_places(
    num_rows: int,
    trainable: Sequence[int],
    num: int,
    seed: int,
    iteration: int,
    update: int,
    wanted: PerStep | None,
) -> list[Place]:
    """`num` transitions of all without replacement, in proportion to `wanted` (of all T), or uniformly."""
    draws = generator_of(seed, "replay", iteration, "update", update)
    if wanted is None:
        order = torch.randperm(num_rows * len(trainable), generator=draws).tolist()[:num]
    else:
        order = draw_items(wanted[list(trainable)].repeat(num_rows), num, draws)
    return [Place(number // len(trainable), trainable[number % len(trainable)]) for number in order]


def trained_share(grid: Grid, num: int, wanted: PerStep | None, num_rows: int = 1) -> PerStep:
    """The share that each step has in what is trained when `num` of the steps of `num_rows` trajectories are drawn; float64."""
    share = torch.zeros(len(grid), dtype=torch.float64)
    if wanted is None:
        share[grid.trainable] = 1 / len(grid.trainable)
    else:
        pi = inclusion_probabilities(wanted[grid.trainable].repeat(num_rows), num)
        share[grid.trainable] = pi.reshape(num_rows, -1).sum(dim=0) / num
    return share


@dataclass(frozen=True)
class Transitions:
    """Single steps x_t -> x_prev, with the prompts they belong to as rows of `rollouts`."""

    rollouts: RolloutBatch
    rows: list[int]
    index: Indices
    timesteps: Timesteps
    x_t: Latents
    x_prev: Latents
    log_prob: PerExample


def transitions(rollouts: RolloutBatch, trajectories: Trajectories, places: Sequence[Place]) -> Transitions:
    """The steps at `places`, on the device."""
    device = rollouts.actors.family.device
    rows, index = [place.row for place in places], torch.tensor([place.index for place in places])
    x_t = trajectories.states[rows, index].to(device)
    return Transitions(
        rollouts,
        rows,
        index,
        rollouts.setup.grid.level(index, x_t),
        x_t,
        trajectories.states[rows, index + 1].to(device),
        trajectories.log_probs[rows, index].to(device),
    )


def both(one: Transitions, other: Transitions) -> Transitions:
    """The steps of two sides of one rollout batch, one after the other."""
    return Transitions(
        one.rollouts,
        [*one.rows, *other.rows],
        torch.cat([one.index, other.index]),
        torch.cat([one.timesteps, other.timesteps]),
        torch.cat([one.x_t, other.x_t]),
        torch.cat([one.x_prev, other.x_prev]),
        torch.cat([one.log_prob, other.log_prob]),
    )
