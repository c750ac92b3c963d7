"""Judged images as training reads them: the posterior of each image, the prompt's conditioning, like or dislike.

Caching as for `pairs.PreferencePairs`: a dataset that was read as pairs before is not encoded again.
"""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from jaxtyping import Bool
from PIL import Image
from torch import Tensor

from alignment_core.datasets.cache import Places, ShardReader
from alignment_core.datasets.encoding import (
    EncodeImages,
    Frames,
    ImageConditioning,
    Latents,
    decode,
    encode_in_parts,
    read_images,
    told_nothing,
)
from alignment_core.datasets.preparation import Preparation, Prepared, prepare
from alignment_core.datasets.rows import ImageReader
from alignment_core.datasets.transforms import Crop, draw_placement, frame, transform
from alignment_core.datasets.unpaired import ImageAnnotation
from alignment_core.events import PhaseProgressed, WarningRaised


@dataclass(frozen=True)
class ImageTensors:
    """A batch of images on the CPU: posteriors float32 `[B, C, h, w]`, conditioning by name `[B, ...]`, `liked` `[B]`.

    `image_conditioning` is what a denoiser is told of the images beside the prompts.
    """

    mean: Latents
    std: Latents
    conditioning: dict[str, Tensor]
    liked: Bool[Tensor, " batch"]
    image_conditioning: dict[str, Tensor] = field(default_factory=dict)


MeanStdFrame = tuple[Latents, Latents, Frames]


class ImagePosteriors(Protocol):
    """`read(indices, draws)`: mean and standard deviation of the images at `indices`, and their frames."""

    def read(self, indices: Sequence[int], draws: Sequence[torch.Generator] | None) -> MeanStdFrame: ...

    def foresee(self, indices: Sequence[int]) -> None:
        """They are read next, after those foreseen before."""
        ...


@dataclass(frozen=True)
class CachedImages:
    """Reads what `encoding.cache_images` has stored; never touches a generator."""

    shards: ShardReader
    places: Places

    def read(self, indices: Sequence[int], draws: Sequence[torch.Generator] | None) -> MeanStdFrame:
        found = self.shards.read(self.places[list(indices)])
        return found["mean"], found["std"], found["frame"]

    def foresee(self, indices: Sequence[int]) -> None:
        self.shards.foresee(self.places[list(indices)])


@dataclass(frozen=True)
class FreshImages:
    """Decodes, transforms at random and encodes at every visit, at most `batch_size` images at once."""

    reader: ImageReader
    rows: Sequence[ImageAnnotation]
    encode: EncodeImages
    resolution: int
    crop: Crop
    horizontal_flip: bool
    batch_size: int

    def read(self, indices: Sequence[int], draws: Sequence[torch.Generator] | None) -> MeanStdFrame:
        if draws is None or len(draws) != len(indices):
            raise ValueError("a random transform needs one generator for each image of the batch")
        decoded = self._decoded(sorted(set(indices)))
        placed = [
            (
                decoded[index],
                self.resolution,
                draw_placement(draw, crop=self.crop, horizontal_flip=self.horizontal_flip),
            )
            for index, draw in zip(indices, draws, strict=True)
        ]
        pixels = torch.stack([transform(*one) for one in placed])
        mean, std = encode_in_parts(self.encode, pixels, self.batch_size)
        return mean, std, torch.stack([frame(*one) for one in placed])

    def foresee(self, indices: Sequence[int]) -> None:
        """Images come from the data set's files."""

    def _decoded(self, indices: Sequence[int]) -> dict[int, Image.Image]:
        """An image that a batch holds twice is read once."""
        found = read_images(self.reader, [self.rows[index] for index in indices])
        return {index: decode(self.reader, row, 0) for index, row in zip(indices, found, strict=True)}


class JudgedImages:
    """Images by index; made by `prepare`. `likes` and `dislikes` are the indices of either kind, ascending."""

    def __init__(
        self,
        rows: Sequence[ImageAnnotation],
        posteriors: ImagePosteriors,
        text: ShardReader,
        prompts: Places,
        empty_prompt: Places,
        image_conditioning: ImageConditioning = told_nothing,
    ) -> None:
        self.prompts: list[str] = [row.prompt for row in rows]
        self.liked: Bool[Tensor, " images"] = torch.tensor([row.liked for row in rows], dtype=torch.bool)
        self.likes: list[int] = self.liked.nonzero().flatten().tolist()
        self.dislikes: list[int] = (~self.liked).nonzero().flatten().tolist()
        self.empty_conditioning: dict[str, Tensor] = text.read(empty_prompt)
        self._posteriors = posteriors
        self._text = text
        self._prompt_places = prompts
        self._image_conditioning = image_conditioning

    @classmethod
    def prepare(
        cls,
        reader: ImageReader,
        rows: Sequence[ImageAnnotation],
        how: Preparation,
        *,
        is_seekable: bool,
    ) -> Generator[PhaseProgressed | WarningRaised, None, "JudgedImages"]:
        """Fill the cache for `rows`, which ascend; see `PreferencePairs.prepare`.

        An image that a prompt's pairs both choose and reject counts once, as liked. Raises `DataError` for an image
        that cannot be decoded, naming its row.
        """
        found = yield from prepare(reader, rows, how, num_images=1, is_seekable=is_seekable)
        kept = _without_lost_wins(found)
        rows = [found.rows[index] for index in kept]
        if found.images is not None:
            posteriors: ImagePosteriors = CachedImages(found.images, found.places[0][kept])
        else:
            posteriors = FreshImages(
                found.reader, rows, how.encode_images, how.resolution, how.crop, how.horizontal_flip, how.batch_size
            )
        return cls(rows, posteriors, found.text, found.prompts[kept], found.empty_prompt, how.image_conditioning)

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def num_winners(self) -> int:
        return len(self.likes)

    def winners(
        self, indices: Sequence[int], draws: Sequence[torch.Generator]
    ) -> tuple[Latents, Latents, dict[str, Tensor]]:
        """See `drift.Winners`: the liked images."""
        images = self.batch([self.likes[index] for index in indices], draws)
        return images.mean, images.std, {**images.conditioning, **images.image_conditioning}

    @property
    def are_cached(self) -> bool:
        """See `PreferencePairs.are_cached`."""
        return isinstance(self._posteriors, CachedImages)

    @property
    def looks_ahead(self) -> bool:
        """See `PreferencePairs.looks_ahead`."""
        return self._text.is_bounded

    def foresee(self, indices: Sequence[int]) -> None:
        """See `PreferencePairs.foresee`."""
        self._posteriors.foresee(indices)
        self._text.foresee(self._prompt_places[list(indices)])

    def batch(self, indices: Sequence[int], draws: Sequence[torch.Generator] | None = None) -> ImageTensors:
        """The images at `indices`. `draws`, one generator an image, is read by random transforms alone."""
        if not indices:
            raise ValueError("a batch needs at least one image")
        mean, std, frames = self._posteriors.read(indices, draws)
        chosen, conditioning = list(indices), self._image_conditioning(frames)
        return ImageTensors(mean, std, self._text.read(self._prompt_places[chosen]), self.liked[chosen], conditioning)


def _without_lost_wins(found: Prepared[ImageAnnotation]) -> list[int]:
    """The images to keep of pairs, as Diffusion-KTO labels them: each once a prompt, liked if it was ever chosen.

    Rows that were labelled one by one are all kept, as they are. An image is told by its content, which is its place in
    the cache, or by its file.
    """
    images = [row.image for row in found.rows] if found.images is None else map(tuple, found.places[0].tolist())
    names = [(row.prompt, image) for row, image in zip(found.rows, images, strict=True)]
    won = {name for row, name in zip(found.rows, names, strict=True) if row.liked}
    kept, seen = [], set()
    for index, (row, name) in enumerate(zip(found.rows, names, strict=True)):
        if row.column == "image":
            kept.append(index)
        elif (row.liked or name not in won) and name not in seen:
            seen.add(name)
            kept.append(index)
    return kept
