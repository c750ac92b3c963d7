"""Filling the cache: every prompt and image of a dataset is encoded once, with progress.

Images are encoded in batches of consecutive rows, of which the cached ones are left out. The cache is written at the end of
batches only, so a run that was killed goes on with the very batches it would have had: the bits do not depend on it.
"""

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from alignment_core.datasets.bad_rows import row_error
from alignment_core.datasets.cache import Places, TensorCache
from alignment_core.datasets.images import decode_image
from alignment_core.datasets.rows import Annotated, BadRow, ImageReader, Row, RowT
from alignment_core.datasets.transforms import Frame, Pixels, frame, transform
from alignment_core.errors import AlignmentError, DataError
from alignment_core.events import PhaseProgressed

Images = Float[Tensor, "batch 3 resolution resolution"]
Latents = Float[Tensor, "batch channels h w"]
EncodeImages = Callable[[Images], tuple[Latents, Latents]]
EncodePrompts = Callable[[list[str]], Mapping[str, Tensor]]
Frames = Float[Tensor, "batch 4"]
ImageConditioning = Callable[[Frames], dict[str, Tensor]]
"""What a denoiser is told of images beside the prompt, by name, `[B, ...]`; nothing, for most."""

DECODING_THREADS = 4
SECONDS_BETWEEN_EVENTS = 1.0


@dataclass
class EncodingProgress:
    """Counts what is done and says so about once a second, and at the beginning and the end."""

    total: int
    done: int = 0
    cached: int = 0
    _said_at: float = field(default=-1e9, repr=False)

    def advance(self, done: int, cached: int) -> Iterator[PhaseProgressed]:
        """Add to the counts; yields an event when it is time for one."""
        self.done += done
        self.cached += cached
        now = time.monotonic()
        if now - self._said_at >= SECONDS_BETWEEN_EVENTS or self.done == self.total:
            self._said_at = now
            yield PhaseProgressed(phase="caching", done=self.done, total=self.total, cached=self.cached)


def cache_prompts(
    prompts: Sequence[str], encode: EncodePrompts, cache: TensorCache, batch_size: int, progress: EncodingProgress
) -> Generator[PhaseProgressed, None, Places]:
    """Encode the prompts that are not cached; returns the place of each."""
    keys = [cache.key(prompt.encode()) for prompt in prompts]
    for start in range(0, len(prompts), batch_size):
        end = min(start + batch_size, len(prompts))
        missing = [index for index in range(start, end) if cache.find(keys[index]) is None]
        if missing:
            encoded = encode([prompts[index] for index in missing])
            _add(cache, [keys[index] for index in missing], encoded, [repr(prompts[index]) for index in missing])
        yield from progress.advance(end - start, end - start - len(missing))
    return _places(cache, keys)


def cache_images(
    source: ImageReader,
    rows: Sequence[Annotated[RowT]],
    encode: EncodeImages,
    cache: TensorCache,
    *,
    num_images: int,
    resolution: int,
    batch_size: int,
    progress: EncodingProgress,
) -> Generator[PhaseProgressed, None, tuple[Places, ...]]:
    """Encode the images that are not cached; returns the places of each of a row's `num_images`.

    An image that comes again counts as cached.
    """
    keys: list[list[bytes]] = [[] for _ in range(num_images)]
    read = read_images(source, rows)
    with ThreadPoolExecutor(DECODING_THREADS) as threads:
        while batch := list(islice(read, max(1, batch_size // num_images))):
            missing: dict[bytes, tuple[RowT, int]] = {}
            for row in batch:
                for index, image in enumerate(row.images):
                    key = cache.key(image)
                    keys[index].append(key)
                    if cache.find(key) is None:
                        missing[key] = (row, index)
            if missing:
                pixels, frames = zip(
                    *threads.map(lambda item: _centered(decode(source, *item), resolution), missing.values()),
                    strict=True,
                )
                mean, std = encode_in_parts(encode, torch.stack(pixels), batch_size)
                names = [f"{row.columns[index]} of row {row.number}" for row, index in missing.values()]
                _add(cache, list(missing), {"mean": mean, "std": std, "frame": torch.stack(frames)}, names)
            yield from progress.advance(num_images * len(batch), num_images * len(batch) - len(missing))
    return tuple(_places(cache, each) for each in keys)


def _centered(image: Image.Image, resolution: int) -> tuple[Pixels, Frame]:
    return transform(image, resolution), frame(image, resolution)


def told_nothing(frames: Frames) -> dict[str, Tensor]:
    """`ImageConditioning` of denoisers that know the prompt alone."""
    return {}


def read_images(source: ImageReader, rows: Sequence[Annotated[RowT]]) -> Iterator[RowT]:
    """The rows with their images; raises `DataError` for one whose images cannot be read."""
    for row in source.read(rows):
        if isinstance(row, BadRow):
            raise row_error(source, row)
        yield row


def encode_in_parts(encode: EncodeImages, images: Images, batch_size: int) -> tuple[Latents, Latents]:
    """Mean and standard deviation, float32 on the CPU; the encoder sees at most `batch_size` images at once."""
    encoded = [encode(part) for part in images.split(batch_size)]
    mean, std = (torch.cat([pair[side].detach().float().cpu() for pair in encoded]) for side in (0, 1))
    return mean, std


def decode(source: ImageReader, row: Row, index: int) -> Image.Image:
    """One of the row's images, decoded; its `DataError` names file, row and column."""
    try:
        return decode_image(row.images[index])
    except DataError as error:
        where = f"{source.path.name}, row {row.number}, {row.columns[index]}"
        raise DataError(error.code, f"{where}: {error.message}") from error


def _add(cache: TensorCache, keys: Sequence[bytes], encoded: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Put a batch into the cache as float32, after checking that it can be trained on."""
    batch = {name: value.detach().float().cpu() for name, value in encoded.items()}
    for name, value in batch.items():
        assert len(value) == len(keys), f"the encoder gave {len(value)} {name} for {len(keys)} inputs"
        finite = value.flatten(1).isfinite().all(dim=1)
        if not finite.all():
            culprit = names[int(finite.logical_not().nonzero()[0])]
            raise AlignmentError(
                "encoding_not_finite",
                f"{culprit}: its encoding ({name}) is not finite",
                hint="Some VAEs overflow in half precision; use float32 or a VAE made for fp16.",
            )
    for index, key in enumerate(keys):
        cache.add(key, {name: value[index] for name, value in batch.items()})
    cache.flush_if_large()


def _places(cache: TensorCache, keys: Sequence[bytes]) -> Places:
    places = [cache.find(key) for key in keys]
    return torch.tensor(places, dtype=torch.int64).reshape(-1, 2)
