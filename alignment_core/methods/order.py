"""The order in which an epoch visits its examples, and so those of every step: a function of the seed and the position alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from alignment_core.seeds import generator_of, permutation_of


@dataclass(frozen=True)
class Blocks:
    """`rows` neighbours in the data are a block; at any time the examples of at most `window` blocks are visited."""

    rows: int
    window: int


def indices_of_step(size: int, num: int, step: int, seed: int, blocks: Blocks | None = None) -> list[int]:
    """The `num` examples of a step, of `size`: epochs are shuffled anew and run into each other."""
    positions = range(step * num, (step + 1) * num)
    orders = {epoch: order_of_epoch(size, seed, epoch, blocks) for epoch in {p // size for p in positions}}
    return [orders[position // size][position % size] for position in positions]


def order_of_epoch(size: int, seed: int, epoch: int, blocks: Blocks | None = None) -> Sequence[int]:
    """A random order of `range(size)`; without blocks, or where a window holds everything, each is as likely."""
    if blocks is None or blocks.rows * blocks.window >= size:
        return permutation_of(size, seed, "order", epoch)
    return _order_in_blocks(size, seed, epoch, blocks)


@lru_cache(maxsize=4)  # every step asks for its epoch's order again
def _order_in_blocks(size: int, seed: int, epoch: int, blocks: Blocks) -> tuple[int, ...]:
    """Blocks begin one after the other in a random order, and each is visited while `window` blocks begin.

    An example's time is its block's number plus a uniform share of the window, so one block comes and one goes at a time. What
    would come before half a window, and after it at the end, is mirrored there: examples are then as dense at every time, and
    those of at least half a window of blocks are mixed.
    """
    draws = generator_of(seed, "blocks", epoch)
    num_blocks = -(-size // blocks.rows)
    begins = torch.randperm(num_blocks, generator=draws)
    times = begins[torch.arange(size) // blocks.rows] + blocks.window * torch.rand(
        size, generator=draws, dtype=torch.float64
    )
    first, last = blocks.window / 2, num_blocks + blocks.window / 2
    times = torch.where(times < first, 2 * first - times, times)
    times = torch.where(times > last, 2 * last - times, times)
    return tuple(times.argsort(stable=True).tolist())
