"""Pairs of random latents in a real cache: as many as one likes, without an image being decoded or encoded."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from alignment_core.datasets.cache import Places, TensorCache
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.datasets.posteriors import CachedPosteriors
from alignment_core.datasets.rows import Annotation

NUM_PROMPTS = 1000
BLOCK = 1000


def synthetic_pairs(
    num: int, latent_shape: tuple[int, int, int], conditioning: Mapping[str, Tensor], folder: Path
) -> PreferencePairs:
    """`num` pairs, each with two posteriors of its own; their prompts are `NUM_PROMPTS`, encoded like `conditioning` `[1, ...]`."""
    generator = torch.Generator().manual_seed(num)
    images = TensorCache(folder, {"kind": "posterior", "rows": num, "shape": str(latent_shape)})
    places, frame = [], torch.zeros(4)
    for start in range(0, 2 * num, BLOCK):
        means = torch.randn(min(BLOCK, 2 * num - start), *latent_shape, generator=generator)
        for offset, (mean, std) in enumerate(zip(means.unbind(), (means.abs() * 0.1).unbind(), strict=True)):
            key = images.key(str(start + offset).encode())
            places.append(images.add(key, {"mean": mean, "std": std, "frame": frame}))
        images.flush_if_large()
    where = torch.tensor(places)
    texts = TensorCache(folder, {"kind": "text", "rows": num, "shape": str(latent_shape)})
    read = [_prompt(texts, number, conditioning, generator) for number in range(NUM_PROMPTS)]
    prompts: Places = torch.tensor(read)
    rows = [_row(number) for number in range(num)]
    of_rows = prompts[torch.arange(num) % NUM_PROMPTS]
    posteriors = CachedPosteriors(images.reader(), where[:num], where[num:])
    return PreferencePairs(rows, posteriors, texts.reader(), of_rows, prompts[:1])


def _prompt(
    texts: TensorCache, number: int, conditioning: Mapping[str, Tensor], generator: torch.Generator
) -> tuple[int, int]:
    tensors = {name: torch.randn(value.shape[1:], generator=generator) for name, value in conditioning.items()}
    return texts.add(texts.key(str(number).encode()), tensors)


def _row(number: int) -> Annotation:
    prompt = f"prompt {number % NUM_PROMPTS}"
    return Annotation(number + 1, prompt, "chosen", "rejected", label=1.0, score=None, group_id=prompt)
