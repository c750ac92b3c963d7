"""What a shard held, encoded again in the middle of a run: in the batches that it was encoded in, so the bits are those of then."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignment_core.datasets.cache import Mended, Places
from alignment_core.datasets.encoding import EncodeImages, EncodePrompts, decode, encode_in_parts, read_images
from alignment_core.datasets.rows import Annotated, ImageReader
from alignment_core.datasets.transforms import frame, transform

KeyOf = Callable[[bytes], bytes]
"""The cache's key of an image's bytes or a prompt in UTF-8."""


@dataclass(frozen=True)
class ImageMending:
    """Encodes the images of a shard from the rows again; arguments as in `encoding.cache_images`, `places` as it has given them."""

    source: ImageReader
    rows: Sequence[Annotated[Any]]
    places: tuple[Places, ...]
    encode: EncodeImages
    key_of: KeyOf
    resolution: int
    batch_size: int

    def __call__(self, number: int) -> Mended:
        """The entries of the shard with this number that are of these rows."""
        size = max(1, self.batch_size // len(self.places))
        places = torch.stack(list(self.places), dim=1)  # [rows, images, 2]
        here = first_at_each_place(places.flatten(0, 1), number).reshape(places.shape[:2])
        wanted = here.any(dim=1).nonzero().flatten().tolist()
        parts = [self._batch(batch, here, places) for batch in batches_of(wanted, size)]
        return joined(parts)

    def _batch(self, rows: Sequence[int], here: Tensor, places: Tensor) -> Mended:
        read = read_images(self.source, [self.rows[row] for row in rows])
        found = [(number, row, index) for number, row in zip(rows, read, strict=True) for index in range(here.shape[1])]
        found = [(number, row, index) for number, row, index in found if here[number, index]]
        images = [decode(self.source, row, index) for _, row, index in found]
        pixels = torch.stack([transform(image, self.resolution) for image in images])
        mean, std = encode_in_parts(self.encode, pixels, self.batch_size)
        frames = torch.stack([frame(image, self.resolution) for image in images])
        return Mended(
            [self.key_of(row.images[index]) for _, row, index in found],
            [int(places[number, index, 1]) for number, _, index in found],
            {"mean": mean, "std": std, "frame": frames.float()},
        )


@dataclass(frozen=True)
class PromptMending:
    """The same for prompts; arguments as in `encoding.cache_prompts`."""

    prompts: Sequence[str]
    places: Places
    encode: EncodePrompts
    key_of: KeyOf
    batch_size: int

    def __call__(self, number: int) -> Mended:
        wanted = first_at_each_place(self.places, number).nonzero().flatten().tolist()
        return joined([self._batch(batch) for batch in batches_of(wanted, self.batch_size)])

    def _batch(self, wanted: Sequence[int]) -> Mended:
        prompts = [self.prompts[index] for index in wanted]
        encoded = {name: value.detach().float().cpu() for name, value in self.encode(prompts).items()}
        return Mended(
            [self.key_of(prompt.encode()) for prompt in prompts], self.places[list(wanted), 1].tolist(), encoded
        )


def first_at_each_place(places: Places, number: int) -> Tensor:
    """Which of the entries are in this shard; of those at one place, which are one image, the first."""
    seen, first = set[int](), torch.zeros(len(places), dtype=torch.bool)
    for index in (places[:, 0] == number).nonzero().flatten().tolist():
        row = int(places[index, 1])
        first[index] = row not in seen
        seen.add(row)
    return first


def batches_of(indices: Sequence[int], size: int) -> list[list[int]]:
    """Ascending indices by the batch of `size` that each is in."""
    found: dict[int, list[int]] = {}
    for index in indices:
        found.setdefault(index // size, []).append(index)
    return list(found.values())


def joined(parts: Sequence[Mended]) -> Mended:
    tensors: Mapping[str, Tensor] = {
        name: torch.cat([part.tensors[name] for part in parts]) for name in parts[0].tensors
    }
    return Mended([key for part in parts for key in part.keys], [row for part in parts for row in part.rows], tensors)
