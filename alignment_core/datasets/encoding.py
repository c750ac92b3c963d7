"""Filling the cache: every prompt and image of a dataset is encoded once, with progress.

Several processes of a run share the work: each encodes every so manieth batch, and then all find all in the cache.

Images are encoded in batches of consecutive rows, of which the cached ones are left out. The cache is written at the end of
batches only, so a run that was killed goes on with the very batches it would have had: the bits do not depend on it. Nor do
they on how far reading and decoding are ahead of the encoder, which waits for neither where they are the faster.
"""

import hashlib
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeVar

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from alignment_core.datasets.ahead import begun_ahead, read_ahead
from alignment_core.datasets.bad_rows import row_error
from alignment_core.datasets.cache import Places, TensorCache
from alignment_core.datasets.contents import Contents, Digests
from alignment_core.datasets.decoders import Decode, Decoded, decoding
from alignment_core.datasets.images import decode_image
from alignment_core.datasets.rows import Annotated, BadRow, ImageReader, Row, RowT
from alignment_core.errors import AlignmentError, DataError
from alignment_core.events import PhaseProgressed
from alignment_core.ranks import ALONE, Ranks

T = TypeVar("T")
Images = Float[Tensor, "batch 3 resolution resolution"]
Latents = Float[Tensor, "batch channels h w"]
EncodeImages = Callable[[Images], tuple[Latents, Latents]]
EncodePrompts = Callable[[list[str]], Mapping[str, Tensor]]
Frames = Float[Tensor, "batch 4"]
ImageConditioning = Callable[[Frames], dict[str, Tensor]]
"""What a denoiser is told of images beside the prompt, by name, `[B, ...]`; nothing, for most."""

BYTES_AHEAD = 256 * 2**20  # of decoded images that wait for the encoder
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
    prompts: Sequence[str],
    encode: EncodePrompts,
    cache: TensorCache,
    batch_size: int,
    progress: EncodingProgress,
    ranks: Ranks = ALONE,
) -> Generator[PhaseProgressed, None, Places]:
    """Encode the prompts that are not cached; returns the place of each."""
    keys = [cache.key(prompt.encode()) for prompt in prompts]

    def encode_own() -> Generator[PhaseProgressed, None, None]:
        for start in range(ranks.rank * batch_size, len(prompts), ranks.count * batch_size):
            end = min(start + batch_size, len(prompts))
            missing = [index for index in range(start, end) if cache.find(keys[index]) is None]
            if missing:
                encoded = encode([prompts[index] for index in missing])
                _add(cache, [keys[index] for index in missing], encoded, [repr(prompts[index]) for index in missing])
            yield from progress.advance(end - start, end - start - len(missing))
        cache.flush()

    yield from ranks.shared_out(encode_own())
    if ranks.count > 1:
        cache.look_again()
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
    bytes_ahead: int = BYTES_AHEAD,
    ranks: Ranks = ALONE,
    contents: Contents | None = None,
) -> Generator[PhaseProgressed, None, tuple[Places, ...]]:
    """Encode the images that are not cached; returns the places of each of a row's `num_images`.

    An image that comes again counts as cached. While a batch is encoded the next ones are read and decoded, so many that their
    pixels take `bytes_ahead` at most, but at least one; 0 does one thing after another.
    """
    size = max(1, batch_size // num_images)
    own_rows = of_own_batches(rows, size, ranks)

    def encode_own() -> Generator[PhaseProgressed, None, Digests]:
        recalled = None if contents is None else contents.recalled(own_rows)
        digests: Digests = []
        with decoding(num_images * len(own_rows), ranks) as decode:
            batches = _keyed_batches(source, own_rows, cache, size, recalled)
            begun = _begun(source, read_ahead(batches) if bytes_ahead else batches, cache, resolution, decode)
            for batch in begun_ahead(begun, _batches_ahead(bytes_ahead, batch_size, resolution)):
                digests += batch.digests
                if batch.decoding:
                    pixels, frames = zip(*batch.decoded(source), strict=True)
                    mean, std = encode_in_parts(encode, torch.stack(pixels), batch_size)
                    tensors = {"mean": mean, "std": std, "frame": torch.stack(frames)}
                    _add(cache, list(batch.missing), tensors, batch.names())
                num = num_images * len(batch.digests)
                yield from progress.advance(num, num - len(batch.missing))
        cache.flush()
        if contents is not None and recalled is None and digests:
            contents.keep(own_rows, digests)
        return digests

    digests = _in_order((yield from ranks.shared_out(encode_own())), len(rows), size)
    if ranks.count > 1:
        cache.look_again()
    return tuple(_places(cache, [cache.key_of(row[index]) for row in digests]) for index in range(num_images))


def of_own_batches(rows: Sequence[T], size: int, ranks: Ranks) -> list[T]:
    """The rows that this process encodes: every so manieth batch of `size`."""
    return [row for index, row in enumerate(rows) if index // size % ranks.count == ranks.rank]


def _in_order(parts: Sequence[Sequence[T]], num: int, size: int) -> list[T]:
    """What each process has of its own batches, as one process has it of all."""
    remaining = [iter(part) for part in parts]
    return [next(remaining[index // size % len(parts)]) for index in range(num)]


KeyedRow = tuple[tuple[bytes, ...], Row | None]  # digests of a row's images; no row where it need not be read


@dataclass(frozen=True)
class _Begun:
    """Rows of which the missing images are being decoded, in the order of `missing`: by key, row and index in it."""

    digests: Digests
    missing: dict[bytes, tuple[Row, int]]
    decoding: list[Future[Decoded]]

    def names(self) -> list[str]:
        return [f"{row.columns[index]} of row {row.number}" for row, index in self.missing.values()]

    def decoded(self, source: ImageReader) -> Iterator[Decoded]:
        for (row, index), begun in zip(self.missing.values(), self.decoding, strict=True):
            with naming(source, row, index):
                result = begun.result()
            yield result


def _keyed_batches(
    source: ImageReader, rows: Sequence[Annotated[RowT]], cache: TensorCache, size: int, recalled: Digests | None
) -> Iterator[Sequence[KeyedRow]]:
    """`size` rows at a time, with the digests of their images; a batch that is known and cached is not read."""
    batches = [slice(start, start + size) for start in range(0, len(rows), size)]
    is_read = [recalled is None or not _all_cached(cache, recalled[batch]) for batch in batches]
    read = read_images(
        source, [row for batch, reads in zip(batches, is_read, strict=True) if reads for row in rows[batch]]
    )
    for batch, reads in zip(batches, is_read, strict=True):
        if reads:
            yield [(tuple(map(_digest, row.images)), row) for row in islice(read, len(rows[batch]))]
        else:
            assert recalled is not None
            yield [(digests, None) for digests in recalled[batch]]


def _all_cached(cache: TensorCache, digests: Digests) -> bool:
    return all(cache.find(cache.key_of(one)) is not None for row in digests for one in row)


def _digest(image: bytes) -> bytes:
    return hashlib.sha256(image).digest()


def _begun(
    source: ImageReader,
    batches: Iterator[Sequence[KeyedRow]],
    cache: TensorCache,
    resolution: int,
    decode: Decode,
) -> Iterator[_Begun]:
    """Batches whose missing images are decoded from now on; one that an earlier batch brings is not missing."""
    coming: set[bytes] = set()
    for batch in batches:
        missing = {
            key: (row, index)
            for digests, row in batch
            if row is not None
            for index, key in enumerate(map(cache.key_of, digests))
            if key not in coming and cache.find(key) is None
        }
        coming.update(missing)
        decoding = [decode(row.images[index], resolution) for row, index in missing.values()]
        yield _Begun([digests for digests, _ in batch], missing, decoding)


def _batches_ahead(bytes_ahead: int, batch_size: int, resolution: int) -> int:
    if bytes_ahead == 0:
        return 0
    return max(1, bytes_ahead // (batch_size * 3 * resolution**2 * torch.float32.itemsize))


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
    with naming(source, row, index):
        return decode_image(row.images[index])


@contextmanager
def naming(source: ImageReader, row: Row, index: int) -> Iterator[None]:
    """An error of the image says whose it is."""
    where = f"{source.path.name}, row {row.number}, {row.columns[index]}"
    try:
        yield
    except DataError as error:
        raise DataError(error.code, f"{where}: {error.message}") from error
    except AlignmentError as error:
        raise AlignmentError(
            error.code, f"{where}: {error.message}", category=error.category, retryable=error.retryable
        ) from error


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
