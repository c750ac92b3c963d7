"""Draws that the offline methods share."""

from collections.abc import Mapping

import torch
from torch import Tensor

from alignment_core.seeds import permutation_of


def indices_of_step(size: int, num: int, step: int, seed: int) -> list[int]:
    """The `num` examples of a step, of `size`: epochs are shuffled anew and run into each other."""
    positions = range(step * num, (step + 1) * num)
    orders = {epoch: permutation_of(size, seed, "order", epoch) for epoch in {p // size for p in positions}}
    return [orders[position // size][position % size] for position in positions]


def dropped_conditioning(
    conditioning: Mapping[str, Tensor], empty: Mapping[str, Tensor], dropped: Tensor
) -> dict[str, Tensor]:
    """The conditioning of a batch, `[B, ...]` by name, with that of no prompt where `dropped`, bool `[B]`."""
    return {
        name: torch.where(dropped.reshape(-1, *[1] * (value.ndim - 1)), empty[name], value)
        for name, value in conditioning.items()
    }
