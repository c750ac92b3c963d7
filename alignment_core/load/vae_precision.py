"""In which precision a data set's images are encoded: in half, where that moves the latents so little that no logit is told otherwise.

The VAE is given pixels of 8 bits, which are off by up to half a level. What that moves a latent is the unit in which half precision's error is
measured, on the first batch of the data set; `docs/precision.md` says why up to eight of it are allowed.
"""

import hashlib
import json
import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import Tensor

from alignment_core import checkpoints
from alignment_core.actors.arithmetic import strict_float32
from alignment_core.datasets.durable_files import write_durably
from alignment_core.datasets.encoding import EncodeImages, Images, Latents, decode, read_images
from alignment_core.datasets.notes import Notes
from alignment_core.datasets.rows import Annotated, ImageReader
from alignment_core.datasets.transforms import transform
from alignment_core.events import Event, VaePrecisionChosen
from alignment_core.families.family import Family
from alignment_core.load.precision import DTYPES, HALVES, Half
from alignment_core.ranks import Ranks
from alignment_core.seeds import generator_of
from alignment_core.spec.training import Precision

MAX_LATENT_ERROR = 8.0  # times what rounding pixels moves the latents: a logit then changes by less than 3 % of itself
LEVEL = 2 / 255  # of 8 bits, in [-1, 1]
VERSION = "v1"  # a change of what is measured must change it
FOLDER, ERRORS = "vae_precision", "errors"

Encoded = tuple[Latents, Latents]


class _Kept(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    latent_errors: dict[Half, float | None]


@dataclass(frozen=True)
class ImageEncoding:
    """How a run encodes images, and the name under which the cache keeps what comes of it."""

    precision: Precision
    encode: EncodeImages
    fingerprint: str


def vae_settled(asked: Literal["auto", "fp32"], device: str, resumed: Path | None) -> Precision | None:
    """What images are encoded in as far as it is known before the model is loaded; None where it is to be measured.

    A run that goes on keeps what it began with.
    """
    if asked == "fp32" or device == "cpu":
        return "fp32"
    return None if resumed is None else checkpoints.load_state(resumed).vae_precision


def choose_encoding(
    family: Family,
    known: Precision | None,
    first_images: Callable[[], Images],
    *,
    dataset_sha256: str,
    resolution: int,
    cache_dir: Path,
    notes: Notes | None,
    ranks: Ranks,
) -> Generator[Event, None, ImageEncoding]:
    """The encoder in the precision that is known, or in the one that the first images allow, which is told and remembered."""
    if known is not None:
        return image_encoding(family, known)
    key = _key(family, dataset_sha256, resolution)
    memory = _Memory(cache_dir / FOLDER / f"{key}.json", key, notes)
    errors = ranks.of_first(lambda: memory.recall() or memory.keep(latent_errors(family, first_images())))
    chosen = precision_within(errors)
    yield VaePrecisionChosen(precision=chosen, latent_errors={half: errors[half] for half in errors})
    return image_encoding(family, chosen)


def image_encoding(family: Family, precision: Precision) -> ImageEncoding:
    """The encoder in a precision; a batch that overflows in a half one is encoded in float32."""
    dtype = DTYPES[precision]

    def encode(pixels: Images) -> Encoded:
        found = family.encode_images(pixels, dtype)
        return found if precision == "fp32" or all(map(_is_finite, found)) else family.encode_images(pixels)

    return ImageEncoding(precision, encode, family.image_fingerprint(dtype))


def precision_within(errors: Mapping[Half, float | None]) -> Precision:
    """The half precision of the least error, if that is within the bound."""
    allowed: dict[Precision, float] = {
        half: error for half, error in errors.items() if error is not None and error <= MAX_LATENT_ERROR
    }
    return min(allowed, key=allowed.__getitem__) if allowed else "fp32"


def latent_errors(family: Family, pixels: Images) -> dict[Half, float | None]:
    """How far each half precision moves the latents of the worst image, over how far rounding pixels does; None for no number."""
    with strict_float32():
        exact, moved = family.encode_images(pixels), family.encode_images(pixels + rounding_of(pixels))

    def error_of(half: Half) -> float | None:
        error = in_roundings(family.encode_images(pixels, DTYPES[half]), exact, moved)
        return error if math.isfinite(error) else None

    return {half: error_of(half) for half in HALVES}


def rounding_of(pixels: Images) -> Images:
    """What rounding to 8 bits may have taken from pixels: anything up to half a level."""
    return (torch.rand(pixels.shape, generator=generator_of(0, "vae_precision")) - 0.5) * LEVEL


def in_roundings(found: Encoded, exact: Encoded, moved: Encoded) -> float:
    """How far `found` is from `exact` in the worst image, over how far `moved` is, which was encoded from pixels off by their rounding."""
    return float((_distance(found, exact) / _distance(moved, exact)).max())


def first_images(
    source: ImageReader, rows: Sequence[Annotated[Any]], *, num_images: int, resolution: int, batch_size: int
) -> Images:
    """The images of the first batch, `[B, 3, R, R]` in [-1, 1], transformed as the cache has them."""
    read = read_images(source, rows[: max(1, batch_size // num_images)])
    return torch.stack(
        [transform(decode(source, row, index), resolution) for row in read for index in range(num_images)]
    )


def _distance(one: Encoded, other: Encoded) -> Float[Tensor, " batch"]:
    """Root mean square of z - z' over an image's latent, for z = mean + std noise and the same noise."""
    squares = sum((a - b).square().flatten(1).mean(dim=1) for a, b in zip(one, other, strict=True))
    assert isinstance(squares, Tensor)
    return squares.sqrt()


def _is_finite(values: Tensor) -> bool:
    return bool(values.isfinite().all())


def _key(family: Family, dataset_sha256: str, resolution: int) -> str:
    asked = [VERSION, family.image_fingerprint(), dataset_sha256, resolution]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


@dataclass(frozen=True)
class _Memory:
    """What was measured, in the cache and among the notes of those who share it: they all choose the same."""

    path: Path
    key: str
    notes: Notes | None

    def recall(self) -> dict[Half, float | None] | None:
        try:
            if (
                not self.path.exists()
                and self.notes is not None
                and (shared := self.notes.recall(self.key)) is not None
            ):
                content = load(shared)[ERRORS].tobytes()
            else:
                content = self.path.read_bytes()
            return _Kept.model_validate_json(content).latent_errors
        except (OSError, ValidationError, SafetensorError, KeyError):
            return None

    def keep(self, errors: dict[Half, float | None]) -> dict[Half, float | None]:
        content = _Kept(latent_errors=errors).model_dump_json().encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(self.path, content)
        if self.notes is not None:
            self.notes.keep(self.key, save({ERRORS: np.frombuffer(content, dtype=np.uint8)}))
        return errors
