"""Batches of pairs: what is drawn for each pair of a step. Shared by the methods that learn from pairs."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Generator, Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.forwards import DenoiserFamily
from alignment_core.datasets.ahead import read_ahead
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.methods.draws import (
    MicroBatch,
    dropped_conditioning,
    examples_per_step,
    micro_batches,
    on_device,
    sent,
)
from alignment_core.methods.order import Blocks, indices_of_step
from alignment_core.methods.reference_errors import Visits
from alignment_core.protocols import TimestepStrategy
from alignment_core.shapes import Latents, PerExample, Times, Timesteps


@dataclass(frozen=True)
class PairBatch:
    """Pairs as latents `[B, C, h, w]`, with the one noise and the one timestep that both members of a pair share.

    `conditioning` is the prompt's; what the networks are told of either image beside it is in `image_w` and `image_l`.
    `visits` says which of its pair's own draws each is, where those are of a fixed number.
    """

    x_0_w: Latents
    x_0_l: Latents
    eps: Latents
    timesteps: Timesteps
    reward_scale: PerExample
    conditioning: dict[str, Tensor]
    label: PerExample
    image_w: dict[str, Tensor] = field(default_factory=dict)
    image_l: dict[str, Tensor] = field(default_factory=dict)
    visits: Visits | None = None

    def sent_to(self, device: torch.device) -> "PairBatch":
        """The same on the device, but for what is asked of the host."""
        return PairBatch(
            x_0_w=sent(self.x_0_w, device),
            x_0_l=sent(self.x_0_l, device),
            eps=sent(self.eps, device),
            timesteps=sent(self.timesteps, device),
            reward_scale=sent(self.reward_scale, device),
            conditioning=on_device(self.conditioning, device),
            label=sent(self.label, device),
            image_w=on_device(self.image_w, device),
            image_l=on_device(self.image_l, device),
            visits=self.visits,
        )


@dataclass(frozen=True)
class PairDraws:
    """The pairs of every step, cut up as `StepLayout` says; in `blocks`, if they are not shuffled all at once."""

    pairs: PreferencePairs
    caption_dropout: float
    batch_size: int
    accumulation: int
    seed: int
    rank: int = 0
    num_processes: int = 1
    num_draws: int | None = None
    blocks: Blocks | None = None

    @property
    def num_examples(self) -> int:
        return len(self.pairs)

    def batches(self, actors: Actors, timesteps: TimestepStrategy, first_step: int) -> Iterator[PairBatch]:
        """Micro-batches from `first_step` on, without end; epochs are shuffled anew and run into each other."""
        drawn = micro_batches(self, "dpo", timesteps, self._indices, self.pairs, first_step)
        made = (self._batch(timesteps, one) for one in drawn)
        for batch in read_ahead(made) if self.pairs.are_cached else made:
            yield batch.sent_to(actors.family.device)

    def _indices(self, step: int, draws: Generator) -> list[int]:
        return indices_of_step(len(self.pairs), examples_per_step(self), step, self.seed, self.blocks)

    def _batch(self, timesteps: TimestepStrategy, drawn: MicroBatch) -> PairBatch:
        """Draw posterior samples, and the one noise that both members of a pair share; on the host."""
        pairs = self.pairs.batch(drawn.indices, drawn.generators)
        noise = torch.stack([torch.randn((3, *pairs.chosen_mean.shape[1:]), generator=one) for one in drawn.generators])
        return PairBatch(
            x_0_w=pairs.chosen_mean + pairs.chosen_std * noise[:, 1],
            x_0_l=pairs.rejected_mean + pairs.rejected_std * noise[:, 2],
            eps=noise[:, 0],
            timesteps=drawn.timesteps,
            reward_scale=timesteps.reward_scale(drawn.timesteps),
            conditioning=dropped_conditioning(pairs.conditioning, self.pairs.empty_conditioning, drawn.dropped),
            label=pairs.label,
            image_w=dict(pairs.chosen_conditioning),
            image_l=dict(pairs.rejected_conditioning),
            visits=drawn.visits,
        )


NoisyInputs = tuple[Latents, Times, dict[str, Tensor]]


def noisy_pairs(family: DenoiserFamily, batch: PairBatch) -> tuple[NoisyInputs, Latents]:
    """What the networks are given, winners first and then losers, and what they should say to it."""
    x_0 = torch.cat([batch.x_0_w, batch.x_0_l])
    eps, t, path = batch.eps.repeat(2, 1, 1, 1), batch.timesteps.repeat(2), family.path
    conditioning = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in batch.conditioning.items()}
    conditioning |= {name: torch.cat([value, batch.image_l[name]]) for name, value in batch.image_w.items()}
    return (path.noisy(x_0, eps, t), path.time(t), conditioning), path.target(x_0, eps, t)
