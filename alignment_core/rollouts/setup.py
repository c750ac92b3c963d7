"""What the online methods share: the networks under one guidance, judged images, and state between optimiser steps."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.reference_weights import Weights
from alignment_core.diffusion.path import Grid, Indices
from alignment_core.errors import CheckpointError
from alignment_core.protocols import Predictions, RewardModel
from alignment_core.ranks import ALONE, Ranks
from alignment_core.rollouts.rollout import Draws, Guided, Predict, guided, prompts_of_iteration, scores
from alignment_core.shapes import Images, Latents, PerExample
from alignment_core.stopwatch import Stopwatch


@runtime_checkable
class Resumable(Protocol):
    """A method that holds trajectories between optimiser steps, which a checkpoint has to keep."""

    def state_at(self, step: int) -> dict[str, Tensor]:
        """What step `step` (from 0) begins with; empty where it begins an iteration."""
        ...

    def load_state_at(self, step: int, state: dict[str, Tensor]) -> None: ...


@dataclass
class PendingRollouts:
    """State at the beginning of optimiser steps: of the one that is being made and of the one after it.

    Two, since a run is saved either after a step or, when that step diverged, before it.
    """

    states: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    def keep(self, step: int, state: dict[str, Tensor]) -> None:
        """Remember what `step` begins with, and forget all but the step before it."""
        self.states = {number: kept for number, kept in self.states.items() if number == step - 1}
        self.states[step] = state

    def restore(self, step: int, state: dict[str, Tensor], needed: Sequence[str]) -> None:
        """Put back what a checkpoint kept; raises `CheckpointError` when it lacks something."""
        if missing := set(needed) - state.keys():
            raise CheckpointError("checkpoint_altered", f"the trajectories of step {step}: {min(missing)!r} is missing")
        self.keep(step, state)

    def at(self, step: int) -> dict[str, Tensor]:
        return self.states.get(step, {})


@dataclass(frozen=True)
class RolloutSetup:
    """How an online method draws and judges: prompts, grid, guidance, decoder and rewards.

    `encode` gives the conditioning of prompts and `encode_empty` that without one, the same every time; `decode` images in [0, 1] of
    latents, with gradients where those have any.
    """

    prompts: Sequence[str]
    grid: Grid
    guidance_scale: float
    latent_shape: tuple[int, int, int]
    encode: Callable[[Sequence[str]], dict[str, Tensor]]
    encode_empty: Callable[[], dict[str, Tensor]]
    decode: Callable[[Latents], Images]
    rewards: Sequence[RewardModel]
    seed: int
    ranks: Ranks = ALONE
    scoring: Stopwatch = field(default_factory=Stopwatch, compare=False)
    """How long images were decoded and judged."""

    def rollout_batch(self, actors: Actors, iteration: int, num: int, copies: int = 1) -> "RolloutBatch":
        """`num` prompts of an iteration, `copies` trajectories of each, prompt by prompt."""
        prompts = [prompt for prompt in self.prompts_of(iteration, num) for _ in range(copies)]
        return self.rollout_batch_of(actors, iteration, prompts)

    def prompts_of(self, iteration: int, num: int) -> list[str]:
        """The prompts that an iteration draws for."""
        return prompts_of_iteration(self.prompts, num, self.seed, iteration)

    def rollout_batch_of(self, actors: Actors, iteration: int, prompts: Sequence[str]) -> "RolloutBatch":
        """The same for given prompts."""
        draws = Draws(self.seed, iteration, self.latent_shape)
        return RolloutBatch(self, actors, prompts, self.encode(prompts), self.encode_empty(), draws)


@runtime_checkable
class Drawing(Protocol):
    """A method that draws and judges what it learns from."""

    @property
    def setup(self) -> RolloutSetup: ...


@dataclass(frozen=True)
class RolloutBatch:
    """The prompts of one iteration with their conditioning and their noise."""

    setup: RolloutSetup
    actors: Actors
    prompts: Sequence[str]
    conditioning: dict[str, Tensor]
    empty: dict[str, Tensor]
    draws: Draws

    def conditioning_of(self, rows: Sequence[int]) -> dict[str, Tensor]:
        return {name: value[list(rows)] for name, value in self.conditioning.items()}

    def policy(self, rows: Sequence[int]) -> Guided:
        """The policy's guided prediction for the prompts of `rows`."""
        return self._predict(self.actors.predict_policy, rows)

    def drawing(self, rows: Sequence[int]) -> Guided:
        """The policy's as it draws."""
        return self._predict(self.actors.predict_drawing, rows)

    def reference(self, rows: Sequence[int]) -> Guided:
        """The reference's guided prediction for the prompts of `rows`."""
        return self._predict(self.actors.predict_reference, rows)

    def initial(self, rows: Sequence[int]) -> Guided:
        """The initial model's guided prediction for the prompts of `rows`."""
        return self._predict(self.actors.predict_initial, rows)

    def model_with(self, weights: Weights | None, rows: Sequence[int]) -> Guided:
        """The same of a reference with these weights, or of the policy, outside the distributed wrapper."""
        return self._predict(partial(self.actors.predict_with, weights), rows)

    def predictions(
        self,
        rows: Sequence[int],
        x_t: Latents,
        index: Indices,
        *,
        logit_scale: float,
        policy: Latents | None = None,
    ) -> Predictions:
        """What policy, reference and initial model say to states at the steps `index` of `rows`' prompts; all guided.

        `policy` is what the policy said, where it was asked already and has not changed since.
        """
        times = self.setup.grid.time(index, x_t)
        reference = self.reference(rows)(x_t, times)
        return Predictions(
            x_t,
            times,
            self.conditioning_of(rows),
            policy=self.policy(rows)(x_t, times) if policy is None else policy,
            reference=reference,
            initial=self.initial(rows)(x_t, times) if self.actors.reference_moves else reference,
            logit_scale=logit_scale,
            eps_scale=self.setup.grid.eps_scale(index, x_t),
            empty=self.empty,
            guidance_scale=self.setup.guidance_scale,
        )

    def judge(self, latents: Latents, rows: Sequence[int]) -> Float[Tensor, "rewards batch"]:
        """Scores of the images of latents."""
        with self.setup.scoring.running(latents.device):
            return scores(self.setup.rewards, self.setup.decode(latents), [self.prompts[row] for row in rows])

    def start(self, trajectories: Sequence[int]) -> Latents:
        """x_T on the device."""
        return self.draws.start(trajectories).to(self.actors.family.device)

    def _predict(self, predict: Predict, rows: Sequence[int]) -> Guided:
        own = self.conditioning_of(rows)
        return lambda x_t, t: guided(predict, x_t, t, own, self.empty, self.setup.guidance_scale)


def spread(values: Tensor) -> Tensor:
    """The standard deviation of a batch, said for each of its examples, since metrics are means over examples."""
    return values.std(unbiased=False).expand(len(values))


def reference_metrics(predictions: Predictions, num_examples: int) -> dict[str, PerExample]:
    """How far the reference is from the initial model on the step's own states: |eps_ref - eps_init|^2."""
    moved = predictions.distance(predictions.reference, predictions.initial)
    return {"ref_drift_batch_eps_dist": moved.reshape(-1, num_examples).mean(dim=0)}


def metrics_vs_init(margin: PerExample, beta: float) -> dict[str, PerExample]:
    """`margin` and `implicit_accuracy` against the initial model: right after a copy, the margin itself is 0."""
    return {"margin_vs_init": beta * margin, "accuracy_vs_init": accuracy(margin)}


def accuracy(margin: PerExample) -> PerExample:
    """1 where the margin is positive, a half where it is 0."""
    return (margin > 0).float() + 0.5 * (margin == 0).float()


def chunks(rows: Sequence[int], num: int) -> list[list[int]]:
    """`rows` in `num` equal parts."""
    size = len(rows) // num
    assert size * num == len(rows), "the spec lets an iteration divide into micro-batches"
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def own_chunks(rows: Sequence[int], accumulation: int, ranks: Ranks) -> list[list[int]]:
    """This process's micro-batches of an optimiser step; those of all processes lie beside each other."""
    return chunks(rows, accumulation * ranks.count)[ranks.rank :: ranks.count]


def stack_rows(latents: Sequence[Latents], rows: Sequence[int], places: Sequence[int]) -> Latents:
    """Row `rows[i]` of the state at `places[i]`."""
    return torch.stack([latents[place][row] for row, place in zip(rows, places, strict=True)])
