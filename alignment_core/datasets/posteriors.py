"""Where a batch's VAE posteriors come from: the cache, or a fresh encoding when the transform is random."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from alignment_core.datasets.cache import Places, ShardReader
from alignment_core.datasets.encoding import Column, EncodeImages, Latents, decode, encode_in_parts, read_images
from alignment_core.datasets.rows import Annotation, ImageReader
from alignment_core.datasets.transforms import Crop, transform_pair


@dataclass(frozen=True)
class PairPosteriors:
    """Mean and standard deviation of the VAE's posterior of both images of each pair, float32 `[B, C, h, w]`."""

    chosen_mean: Latents
    chosen_std: Latents
    rejected_mean: Latents
    rejected_std: Latents


class Posteriors(Protocol):
    """`read(indices, draws)`: posteriors of the pairs at `indices`; one generator a pair where draws are random."""

    def read(self, indices: Sequence[int], draws: Sequence[torch.Generator] | None) -> PairPosteriors: ...


@dataclass(frozen=True)
class CachedPosteriors:
    """Reads what `encoding.cache_images` has stored; never touches a generator."""

    shards: ShardReader
    places: dict[Column, Places]

    def read(self, indices: Sequence[int], draws: Sequence[torch.Generator] | None) -> PairPosteriors:
        chosen = self.shards.read(self.places["chosen"][list(indices)])
        rejected = self.shards.read(self.places["rejected"][list(indices)])
        return PairPosteriors(chosen["mean"], chosen["std"], rejected["mean"], rejected["std"])


@dataclass(frozen=True)
class FreshPosteriors:
    """Decodes, transforms at random and encodes at every visit, at most `batch_size` images at once."""

    source: ImageReader
    rows: Sequence[Annotation]
    encode: EncodeImages
    resolution: int
    crop: Crop
    horizontal_flip: bool
    joint: bool
    batch_size: int

    def read(self, indices: Sequence[int], draws: Sequence[torch.Generator] | None) -> PairPosteriors:
        if draws is None or len(draws) != len(indices):
            raise ValueError("a random transform needs one generator for each pair of the batch")
        pairs = self._transformed(indices, draws)
        images = torch.stack([pairs[position][side] for side in (0, 1) for position in range(len(indices))])
        mean, std = encode_in_parts(self.encode, images, self.batch_size)
        return PairPosteriors(*(half for both in zip(mean.chunk(2), std.chunk(2), strict=True) for half in both))

    def _transformed(
        self, indices: Sequence[int], draws: Sequence[torch.Generator]
    ) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
        """Both images of each place in the batch. Sources read forwards, so the rows are visited in their order."""
        order = sorted(range(len(indices)), key=lambda position: self.rows[indices[position]].number)
        unique = {self.rows[indices[position]].number: self.rows[indices[position]] for position in order}
        images = {
            row.number: (decode(self.source, row, "chosen"), decode(self.source, row, "rejected"))
            for row in read_images(self.source, list(unique.values()))
        }
        return {
            position: transform_pair(
                *images[self.rows[indices[position]].number],
                self.resolution,
                crop=self.crop,
                horizontal_flip=self.horizontal_flip,
                joint=self.joint,
                generator=draws[position],
            )
            for position in order
        }
