"""Which steps of a trajectory are trained, where some are wanted more than others: drawn without replacement.

Systematic sampling (Madow 1949) over a random order draws exactly n of T steps, each with an inclusion probability that is known:
pi_i = min(1, c p_i) with c such that they sum to n. Drawing one after the other would have none in closed form, and an
importance correction needs it.
"""

import torch
from jaxtyping import Float
from torch import Generator, Tensor

Probabilities = Float[Tensor, " items"]


def inclusion_probabilities(wanted: Probabilities, num: int) -> Probabilities:
    """pi of each item when `num` are drawn in proportion to `wanted`, float64; those that would pass 1 are always drawn."""
    wanted = wanted.double()
    assert num <= int((wanted > 0).sum()), "the spec asks for no more steps than can be drawn"
    certain = torch.zeros_like(wanted, dtype=torch.bool)
    while True:
        rest = torch.where(certain, 0.0, wanted)
        left = num - int(certain.sum())
        pi = torch.where(certain, 1.0, left * (rest / rest.sum()) if left else rest * 0)
        if not bool(((pi >= 1) & ~certain).any()):
            return pi
        certain |= pi >= 1


def draw_items(wanted: Probabilities, num: int, generator: Generator) -> list[int]:
    """`num` different items in a random order; each is among them with its inclusion probability."""
    order = torch.randperm(len(wanted), generator=generator)
    ends = inclusion_probabilities(wanted, num)[order].cumsum(dim=0)
    ends[-1] = num  # rounding must not lose the last one
    marks = torch.arange(num, dtype=torch.float64) + torch.rand((), generator=generator, dtype=torch.float64)
    return order[torch.searchsorted(ends, marks, right=True)].tolist()
