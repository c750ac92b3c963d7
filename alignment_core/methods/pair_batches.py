"""Batches of pairs: what is drawn for each pair of a step. Shared by the methods that learn from pairs."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from alignment_core.actors.actors import Actors, DenoiserFamily
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.diffusion.formulas import add_noise, training_target
from alignment_core.methods.draws import dropped_conditioning, indices_of_step
from alignment_core.protocols import TimestepStrategy
from alignment_core.seeds import generator_of
from alignment_core.shapes import Latents, PerExample, Timesteps


@dataclass(frozen=True)
class PairBatch:
    """Pairs as latents `[B, C, h, w]`, with the one noise and the one timestep that both members of a pair share."""

    x_0_w: Latents
    x_0_l: Latents
    eps: Latents
    timesteps: Timesteps
    reward_scale: PerExample
    conditioning: dict[str, Tensor]
    label: PerExample


@dataclass(frozen=True)
class PairDraws:
    """The pairs of every step.

    `batch_size` pairs a micro-batch and process, `accumulation` micro-batches a step; `rank` of `num_processes` sees its
    own share of every step's pairs, so that the step is the same however it is cut up.
    """

    pairs: PreferencePairs
    caption_dropout: float
    batch_size: int
    accumulation: int
    seed: int
    rank: int = 0
    num_processes: int = 1

    @property
    def pairs_per_step(self) -> int:
        """The effective batch."""
        return self.batch_size * self.accumulation * self.num_processes

    def batches(self, actors: Actors, timesteps: TimestepStrategy, first_step: int) -> Iterator[PairBatch]:
        """Micro-batches from `first_step` on, without end; epochs are shuffled anew and run into each other."""
        step = first_step
        while True:
            indices = indices_of_step(len(self.pairs), self.pairs_per_step, step, self.seed)
            draws = generator_of(self.seed, "dpo", step)
            t = timesteps.sample(self.pairs_per_step, draws)
            dropped = torch.rand(self.pairs_per_step, generator=draws) < self.caption_dropout
            for micro in range(self.accumulation):
                start = (micro * self.num_processes + self.rank) * self.batch_size
                here = slice(start, start + self.batch_size)
                yield self._batch(actors, timesteps, step, start, indices[here], t[here], dropped[here])
            step += 1

    def _batch(
        self,
        actors: Actors,
        timesteps: TimestepStrategy,
        step: int,
        start: int,
        indices: list[int],
        t: Timesteps,
        dropped: Tensor,
    ) -> PairBatch:
        """Draw posterior samples and noise, for each pair from a generator of its own place in the step."""
        device = actors.family.device
        draws = [generator_of(self.seed, "dpo", step, start + offset) for offset in range(len(indices))]
        pairs = self.pairs.batch(indices, draws)
        noise = torch.stack([torch.randn((3, *pairs.chosen_mean.shape[1:]), generator=draw) for draw in draws])
        conditioning = dropped_conditioning(pairs.conditioning, self.pairs.empty_conditioning, dropped)
        return PairBatch(
            x_0_w=(pairs.chosen_mean + pairs.chosen_std * noise[:, 1]).to(device),
            x_0_l=(pairs.rejected_mean + pairs.rejected_std * noise[:, 2]).to(device),
            eps=noise[:, 0].to(device),
            timesteps=t.to(device),
            reward_scale=timesteps.reward_scale(t).to(device),
            conditioning={name: value.to(device) for name, value in conditioning.items()},
            label=pairs.label.to(device),
        )


NoisyInputs = tuple[Latents, Timesteps, dict[str, Tensor]]


def noisy_pairs(family: DenoiserFamily, batch: PairBatch) -> tuple[NoisyInputs, Latents]:
    """What the networks are given, winners first and then losers, and what they should say to it."""
    x_0 = torch.cat([batch.x_0_w, batch.x_0_l])
    eps, abar = batch.eps.repeat(2, 1, 1, 1), family.abar[batch.timesteps].repeat(2)
    conditioning = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in batch.conditioning.items()}
    inputs = (add_noise(x_0, eps, abar), batch.timesteps.repeat(2), conditioning)
    return inputs, training_target(family.prediction_type, x_0, eps, abar)
