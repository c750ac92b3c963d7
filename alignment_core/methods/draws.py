"""Draws that the offline methods share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from alignment_core.protocols import TimestepStrategy
from alignment_core.seeds import generator_of
from alignment_core.shapes import Timesteps

IndicesOf = Callable[[int, Generator], list[int]]
"""The examples of a step, by its number and a generator that the step's other draws have used before."""


@runtime_checkable
class StepLayout(Protocol):
    """How a step is cut up: `batch_size` examples a micro-batch and process, `accumulation` micro-batches a step.

    `rank` of `num_processes` sees its own share of every step's examples, so that the step is the same however it is cut up.
    """

    @property
    def batch_size(self) -> int: ...
    @property
    def accumulation(self) -> int: ...
    @property
    def rank(self) -> int: ...
    @property
    def num_processes(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def caption_dropout(self) -> float: ...
    @property
    def num_draws(self) -> int | None:
        """How many draws an example has, which its visits take in turn; None draws anew at each visit."""
        ...

    @property
    def num_examples(self) -> int: ...


@dataclass(frozen=True)
class MicroBatch:
    """What is drawn for the examples of a micro-batch; a generator for each, named by its own place in the step.

    `visits` says which of an example's own draws they are, and names the generators, where it has a fixed number of them.
    """

    indices: list[int]
    timesteps: Timesteps
    dropped: Tensor
    generators: list[Generator]
    visits: Int[Tensor, "batch 2"] | None = None


def examples_per_step(layout: StepLayout) -> int:
    """The effective batch."""
    return layout.batch_size * layout.accumulation * layout.num_processes


@runtime_checkable
class Foreseeing(Protocol):
    """Data whose examples may be on their way before they are asked for."""

    @property
    def looks_ahead(self) -> bool: ...

    def foresee(self, indices: Sequence[int]) -> None: ...


def micro_batches(
    layout: StepLayout,
    name: str,
    timesteps: TimestepStrategy,
    indices_of: IndicesOf,
    data: Foreseeing,
    first_step: int,
) -> Iterator[MicroBatch]:
    """What is drawn from optimiser step `first_step` on, without end; `name` keeps the draws of methods apart.

    `data` is told of its examples a step ahead.
    """
    step, num = first_step, examples_per_step(layout)

    def drawn(step: int) -> tuple[Timesteps, Tensor, list[int]]:
        draws = generator_of(layout.seed, name, step)
        t = timesteps.sample(num, draws)
        dropped = torch.rand(num, generator=draws) < layout.caption_dropout
        return t, dropped, indices_of(step, draws)

    def foresee(step: int) -> None:
        if data.looks_ahead:
            indices = drawn(step)[2]
            for here in _own_micro_batches(layout):
                data.foresee(indices[here])

    foresee(step)
    while True:
        foresee(step + 1)
        t, dropped, indices = drawn(step)
        for here in _own_micro_batches(layout):
            if layout.num_draws is None:
                generators = [generator_of(layout.seed, name, step, place) for place in range(num)[here]]
                yield MicroBatch(indices[here], t[here], dropped[here], generators)
            else:
                turns = [(step * num + place) // layout.num_examples for place in range(num)[here]]
                visits = [(index, turn % layout.num_draws) for index, turn in zip(indices[here], turns, strict=True)]
                yield _of_visits(layout, name, timesteps, visits)
        step += 1


def _own_micro_batches(layout: StepLayout) -> list[slice]:
    """The places of a step that each micro-batch of this process has."""
    starts = range(layout.rank, layout.accumulation * layout.num_processes, layout.num_processes)
    return [slice(start * layout.batch_size, (start + 1) * layout.batch_size) for start in starts]


def _of_visits(
    layout: StepLayout, name: str, timesteps: TimestepStrategy, visits: Sequence[tuple[int, int]]
) -> MicroBatch:
    """The draws that belong to the examples, whatever step visits them."""
    generators = [generator_of(layout.seed, name, "of", index, draw) for index, draw in visits]
    t = torch.cat([timesteps.sample(1, draws) for draws in generators])
    dropped = torch.cat([torch.rand(1, generator=draws) for draws in generators]) < layout.caption_dropout
    return MicroBatch([index for index, _ in visits], t, dropped, generators, torch.tensor(visits))


def on_device(conditioning: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: sent(value, device) for name, value in conditioning.items()}


def sent(value: Tensor, device: torch.device) -> Tensor:
    """A batch's tensor on the device: from pinned memory, so that the host goes on while it is copied, and what reads it comes after.

    A copy of pageable memory would wait for every kernel before it, and the next batch would be made while the device has nothing to do.
    """
    if device.type != "cuda" or value.is_cuda:
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def dropped_conditioning(
    conditioning: Mapping[str, Tensor], empty: Mapping[str, Tensor], dropped: Tensor
) -> dict[str, Tensor]:
    """The conditioning of a batch, `[B, ...]` by name, with that of no prompt where `dropped`, bool `[B]`."""
    return {
        name: torch.where(dropped.reshape(-1, *[1] * (value.ndim - 1)), empty[name], value)
        for name, value in conditioning.items()
    }
