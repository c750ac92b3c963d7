"""Whole trajectories, and which of their steps an optimiser step trains: for methods that judge the final image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from alignment_core.online import Scene
from alignment_core.protocols import Latents, PerExample, Timesteps
from alignment_core.rollout import Indices, walk
from alignment_core.seeds import generator_of


@dataclass(frozen=True)
class Trajectories:
    """States `[B, T+1, C, h, w]` from noise to image, log-probabilities `[B, T]` of the policy that drew, on the CPU."""

    states: Float[Tensor, "batch states channels h w"]
    log_probs: Float[Tensor, "batch steps"]

    @property
    def x_0(self) -> Latents:
        return self.states[:, -1]


def draw(scene: Scene, *, batch_size: int, branch: int = 0) -> Trajectories:
    """One trajectory for each prompt of the scene; those of two branches share x_T and nothing else."""
    grid, num = scene.studio.grid, len(scene.prompts)
    parts = [list(range(num))[start : start + batch_size] for start in range(0, num, batch_size)]
    return join([_draw(scene, rows, branch, len(grid)) for rows in parts])


def _draw(scene: Scene, rows: Sequence[int], branch: int, num_steps: int) -> Trajectories:
    start = scene.start(rows)
    drawn = walk(
        scene.studio.grid,
        scene.policy(rows),
        start,
        lambda index: scene.draws.noise(rows, index, branch),
        first=0,
        last=num_steps,
    )
    states, log_probs = torch.stack([start, *drawn.states], dim=1), torch.stack(drawn.log_probs, dim=1)
    return Trajectories(states.cpu(), log_probs.cpu())


def join(parts: Sequence[Trajectories]) -> Trajectories:
    """All trajectories of `parts`, in order."""
    return Trajectories(torch.cat([part.states for part in parts]), torch.cat([part.log_probs for part in parts]))


@torch.no_grad()
def judge(scene: Scene, x_0: Latents, *, batch_size: int) -> Float[Tensor, "rewards batch"]:
    """Scores of the final images, on the CPU."""
    rows = list(range(len(x_0)))
    parts = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    device = scene.actors.family.device
    return torch.cat([scene.judge(x_0[part].to(device), part).cpu() for part in parts], dim=1)


# --- which transitions are trained ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Place:
    """Step `index` of trajectory `row`."""

    row: int
    index: int


def shuffled_places(num_rows: int, trainable: Sequence[int], num_each: int, seed: int, iteration: int) -> list[Place]:
    """`num_each` steps of every trajectory in an order of its own: first one step of each, then another of each, ..."""
    orders = [
        torch.randperm(len(trainable), generator=generator_of(seed, "replay", iteration, row)).tolist()
        for row in range(num_rows)
    ]
    return [Place(row, trainable[orders[row][turn]]) for turn in range(num_each) for row in range(num_rows)]


def drawn_places(
    num_rows: int, trainable: Sequence[int], num: int, seed: int, iteration: int, update: int
) -> list[Place]:
    """`num` transitions of all, uniformly and without replacement."""
    draws = generator_of(seed, "replay", iteration, "update", update)
    order = torch.randperm(num_rows * len(trainable), generator=draws).tolist()[:num]
    return [Place(number // len(trainable), trainable[number % len(trainable)]) for number in order]


@dataclass(frozen=True)
class Transitions:
    """Single steps x_t -> x_prev, with the prompts they belong to as rows of `scene`."""

    scene: Scene
    rows: list[int]
    index: Indices
    timesteps: Timesteps
    x_t: Latents
    x_prev: Latents
    log_prob: PerExample


def transitions(scene: Scene, trajectories: Trajectories, places: Sequence[Place]) -> Transitions:
    """The steps at `places`, on the device."""
    device = scene.actors.family.device
    rows, index = [place.row for place in places], torch.tensor([place.index for place in places])
    x_t = trajectories.states[rows, index].to(device)
    return Transitions(
        scene,
        rows,
        index,
        scene.studio.grid.t(index, x_t),
        x_t,
        trajectories.states[rows, index + 1].to(device),
        trajectories.log_probs[rows, index].to(device),
    )
