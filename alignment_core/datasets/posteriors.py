"""Where a batch's VAE posteriors come from: the cache, or a fresh encoding when the transform is random."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from PIL import Image

from alignment_core.datasets.cache import Places, ShardReader
from alignment_core.datasets.encoding import EncodeImages, Frames, Latents, decode, encode_in_parts, read_images
from alignment_core.datasets.rows import Annotation, ImageReader
from alignment_core.datasets.transforms import Crop, draw_placements, frame, transform


@dataclass(frozen=True)
class PairPosteriors:
    """Mean and standard deviation of the VAE's posterior of both images of each pair, float32 `[B, C, h, w]`, and their frames."""

    chosen_mean: Latents
    chosen_std: Latents
    rejected_mean: Latents
    rejected_std: Latents
    chosen_frame: Frames
    rejected_frame: Frames


class Posteriors(Protocol):
    """`read(indices, draws)`: posteriors of the pairs at `indices`; one generator a pair where draws are random."""

    def read(self, indices: Sequence[int], draws: Sequence[torch.Generator] | None) -> PairPosteriors: ...

    def foresee(self, indices: Sequence[int]) -> None:
        """They are read next, after those foreseen before."""
        ...


@dataclass(frozen=True)
class CachedPosteriors:
    """Reads what `encoding.cache_images` has stored; never touches a generator."""

    shards: ShardReader
    chosen: Places
    rejected: Places

    def read(self, indices: Sequence[int], draws: Sequence[torch.Generator] | None) -> PairPosteriors:
        chosen = self.shards.read(self.chosen[list(indices)])
        rejected = self.shards.read(self.rejected[list(indices)])
        return PairPosteriors(
            *(chosen["mean"], chosen["std"], rejected["mean"], rejected["std"]), chosen["frame"], rejected["frame"]
        )

    def foresee(self, indices: Sequence[int]) -> None:
        self.shards.foresee(self.chosen[list(indices)])
        self.shards.foresee(self.rejected[list(indices)])


@dataclass(frozen=True)
class FreshPosteriors:
    """Decodes, transforms at random and encodes at every visit, at most `batch_size` images at once.

    `reader` is a seekable source or `unpacked.UnpackedImages`, since batches visit rows in any order.
    """

    reader: ImageReader
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
        rows = [self.rows[index] for index in indices]
        decoded = self._decoded(rows)
        placements = [
            draw_placements(draw, crop=self.crop, horizontal_flip=self.horizontal_flip, joint=self.joint)
            for draw in draws
        ]
        placed = [
            (decoded[row.number][side], self.resolution, both[side])
            for side in (0, 1)
            for row, both in zip(rows, placements, strict=True)
        ]
        pixels = torch.stack([transform(*one) for one in placed])
        mean, std = encode_in_parts(self.encode, pixels, self.batch_size)
        chosen_mean, rejected_mean = mean.chunk(2)
        chosen_std, rejected_std = std.chunk(2)
        chosen_frame, rejected_frame = torch.stack([frame(*one) for one in placed]).chunk(2)
        return PairPosteriors(chosen_mean, chosen_std, rejected_mean, rejected_std, chosen_frame, rejected_frame)

    def foresee(self, indices: Sequence[int]) -> None:
        """Images come from the data set's files."""

    def _decoded(self, rows: Sequence[Annotation]) -> dict[int, tuple[Image.Image, Image.Image]]:
        """Both images by row number; a row that a batch holds twice is read once."""
        unique = {row.number: row for row in rows}.values()
        return {
            row.number: (decode(self.reader, row, 0), decode(self.reader, row, 1))
            for row in read_images(self.reader, list(unique))
        }
