"""What every offline dataset needs before training: its text encoded, and its images encoded or within reach.

Without random transforms the VAE's posteriors come from the cache; with them, images are encoded at every visit, from a
reader that may be visited in any order. Text is cached in both cases, since the text encoder is frozen.
"""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic

from alignment_core.datasets.cache import Places, ShardReader, TensorCache
from alignment_core.datasets.contents import Contents
from alignment_core.datasets.encoding import (
    EncodeImages,
    EncodePrompts,
    EncodingProgress,
    ImageConditioning,
    cache_images,
    cache_prompts,
    of_own_batches,
    told_nothing,
)
from alignment_core.datasets.mending import ImageMending, PromptMending
from alignment_core.datasets.rows import AnnotationT, ImageReader
from alignment_core.datasets.shelf import Disk, Shelves
from alignment_core.datasets.transforms import Crop, is_random
from alignment_core.datasets.unpacked import unpack_images
from alignment_core.events import PhaseProgressed, WarningRaised
from alignment_core.ranks import ALONE, Ranks

# Part of the cache's key: a change of the pixels that the centred transform gives must change it.
CENTERED_TRANSFORM = "shorter-side-bilinear/center/v2"  # v2: each posterior with its frame


@dataclass(frozen=True)
class Prepared(Generic[AnnotationT]):
    """Where a dataset's rows find what they are trained on.

    `prompts` holds a place in `text` for each row. `images` with `places`, one of each row's images, are the cached
    posteriors; `images` is None for random transforms, which read from `reader` by `rows`.
    """

    reader: ImageReader
    rows: Sequence[AnnotationT]
    text: ShardReader
    prompts: Places
    empty_prompt: Places
    images: ShardReader | None
    places: tuple[Places, ...]


@dataclass(frozen=True)
class Preparation:
    """How the examples of a data set are encoded, and where what is encoded lies.

    `encode_images`: `[B, 3, R, R]` in [-1, 1] on the CPU to mean and std `[B, C, h, w]`. `encode_prompts`: B prompts to named tensors
    `[B, ...]`. Neither sees more than `batch_size` at once. `image_fingerprint` and `prompt_fingerprint` must change when the one or the
    other would give other numbers. `image_conditioning`: what the denoiser is told of images by their frames. Shards are on `shelves`,
    which others may share, or in `cache_dir`; what random visits need copied lies in `cache_dir`, as much of it as `images_disk` allows.
    The processes of a run share the work. `contents` remembers the images of files as they are.
    """

    encode_images: EncodeImages
    encode_prompts: EncodePrompts
    image_fingerprint: str
    prompt_fingerprint: str
    resolution: int
    crop: Crop
    horizontal_flip: bool
    cache_dir: Path
    batch_size: int
    image_conditioning: ImageConditioning = told_nothing
    shelves: Shelves | None = None
    ranks: Ranks = ALONE
    contents: Contents | None = None
    images_disk: Disk | None = None

    @property
    def is_random(self) -> bool:
        """Whether an image is another one at every visit."""
        return is_random(self.crop, horizontal_flip=self.horizontal_flip)


def prepare(
    source: ImageReader, rows: Sequence[AnnotationT], how: Preparation, *, num_images: int, is_seekable: bool
) -> Generator[PhaseProgressed | WarningRaised, None, Prepared[AnnotationT]]:
    """Fill the cache for `rows`, which ascend; `num_images` are in each row. `found = yield from prepare(...)`: progress counts images and prompts.

    Raises `DataError` for an image that cannot be decoded, naming its row.
    """
    reads_images = not how.is_random or not is_seekable
    prompts = list(dict.fromkeys(["", *(row.prompt for row in rows)]))
    own_rows = len(of_own_batches(rows, max(1, how.batch_size // num_images), how.ranks) if not how.is_random else rows)
    own_prompts = len(of_own_batches(prompts, how.batch_size, how.ranks))
    progress = EncodingProgress(total=own_prompts + (num_images * own_rows if reads_images else 0))
    shelves = how.shelves or Shelves(how.cache_dir)
    text, prompt_places, empty_prompt = yield from _cached_text(
        rows, prompts, how.encode_prompts, how.prompt_fingerprint, shelves, how.batch_size, progress, how.ranks
    )
    if how.is_random:
        if not is_seekable:
            source, rows = yield from unpack_images(source, rows, how.cache_dir / "images", progress, how.images_disk)
        return Prepared(source, rows, text, prompt_places, empty_prompt, None, ())
    images = _image_cache(shelves, how.image_fingerprint, how.resolution)
    places = yield from cache_images(
        source,
        rows,
        how.encode_images,
        images,
        num_images=num_images,
        resolution=how.resolution,
        batch_size=how.batch_size,
        progress=progress,
        ranks=how.ranks,
        contents=how.contents,
    )
    yield from _lost_shards("images", images)
    mend = ImageMending(source, rows, places, how.encode_images, images.keys_of_content, how.resolution, how.batch_size)
    return Prepared(source, rows, text, prompt_places, empty_prompt, images.reader(mend), places)


def _cached_text(
    rows: Sequence[AnnotationT],
    prompts: Sequence[str],
    encode_prompts: EncodePrompts,
    fingerprint: str,
    shelves: Shelves,
    batch_size: int,
    progress: EncodingProgress,
    ranks: Ranks,
) -> Generator[PhaseProgressed | WarningRaised, None, tuple[ShardReader, Places, Places]]:
    """The reader of all `prompts`, of which the first is empty; each row's place in it, and that of the empty prompt."""
    texts = TensorCache(shelves, {"kind": "text", "encoder": fingerprint, "dtype": "float32"})
    places = yield from cache_prompts(prompts, encode_prompts, texts, batch_size, progress, ranks)
    numbers = {prompt: number for number, prompt in enumerate(prompts)}
    mend = PromptMending(prompts, places, encode_prompts, texts.keys_of_content, batch_size)
    text = texts.reader(mend)  # written before the images, which take longest
    yield from _lost_shards("prompts", texts)
    return text, places[[numbers[row.prompt] for row in rows]], places[:1]


def _image_cache(shelves: Shelves, fingerprint: str, resolution: int) -> TensorCache:
    key = {
        "kind": "posterior",
        "encoder": fingerprint,
        "dtype": "float32",
        "resolution": resolution,
        "transform": CENTERED_TRANSFORM,
    }
    return TensorCache(shelves, key)


def _lost_shards(kind: str, cache: TensorCache) -> Iterator[WarningRaised]:
    if cache.lost:
        message = f"{len(cache.lost)} shards of encoded {kind} were damaged or gone; what they held was encoded again"
        yield WarningRaised(code="encoded_again", message=message)
