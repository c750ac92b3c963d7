"""Random numbers without hidden state: every draw's generator is named by the run's seed and a path.

A resumed run, a run with another micro-batch size and a run over several processes therefore see the same draws, and no
generator has to be saved. Generators live on the CPU, so a seed means the same on every device.
"""

import hashlib
from functools import lru_cache

import torch


def seed_of(seed: int, *path: str | int) -> int:
    """A 63-bit seed for the draw that `path` names, by SHA-256 of the seed and the path."""
    text = "/".join([str(seed), *map(str, path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator_of(seed: int, *path: str | int) -> torch.Generator:
    """A fresh CPU generator for the draw that `path` names."""
    return torch.Generator().manual_seed(seed_of(seed, *path))


@lru_cache(maxsize=4)  # every step asks for its epoch's order again
def permutation_of(size: int, seed: int, *path: str | int) -> tuple[int, ...]:
    """A random order of `range(size)` that depends on the seed and the path alone."""
    return tuple(torch.randperm(size, generator=generator_of(seed, *path)).tolist())
