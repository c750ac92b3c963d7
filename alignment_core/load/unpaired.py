"""From a spec's dataset to judged images that are checked, split and cached; pairs are read as a like and a dislike each."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import attrgetter
from pathlib import Path

from alignment_core.datasets.bad_rows import read_annotations
from alignment_core.datasets.contents import Contents
from alignment_core.datasets.detect import open_preferences, open_unpaired
from alignment_core.datasets.judged_images import JudgedImages
from alignment_core.datasets.prompt_lengths import grouped_by_what_is_read, measure
from alignment_core.datasets.rows import ImageReader
from alignment_core.datasets.shelf import Disk, Shelves
from alignment_core.datasets.splits import split_by_group
from alignment_core.datasets.unpaired import ImageAnnotation, images_of_pairs, read_judged_images
from alignment_core.datasets.warnings import data_warnings
from alignment_core.errors import DataError
from alignment_core.events import DatasetChecked, Event, PhaseChanged
from alignment_core.families.family import Family
from alignment_core.load.pairs import Located, checked_dataset, contents_of
from alignment_core.load.sample import Sample
from alignment_core.load.vae_precision import ImageEncoding, choose_encoding, first_images
from alignment_core.ranks import ALONE, Ranks
from alignment_core.spec import ImageMethodSpec, JobSpec
from alignment_core.spec.training import Precision


@dataclass(frozen=True)
class ImageSplits:
    """Images to train on and images held out; the latter may be none."""

    train: JudgedImages
    validation: JudgedImages | None
    validation_prompts: list[str]
    dataset_sha256: str
    vae_precision: Precision


@dataclass(frozen=True)
class _Rows:
    reader: ImageReader
    is_seekable: bool
    images: list[ImageAnnotation]


def load_images(
    spec: JobSpec,
    method: ImageMethodSpec,
    family: Family,
    cache_dir: Path,
    shelves: Shelves | None = None,
    ranks: Ranks = ALONE,
    sample: Sample | None = None,
    vae_precision: Precision | None = "fp32",
    images_disk: Disk | None = None,
) -> Generator[Event, None, ImageSplits]:
    """Check, split and cache the images of the spec's dataset; yields progress and returns both sides. Of a `sample` nothing is held out,
    though prompts are. Without a `vae_precision` it is measured.

    Raises `DataError`, naming the rows, when the dataset cannot be trained on, and `one_class` when a share of likes was
    asked for that the training images cannot give.
    """
    dataset, checked = ranks.after_first(lambda: checked_dataset(method.dataset, cache_dir, shelves))
    report = checked.report
    rows = (_judged if report.kind == "unpaired" else _of_pairs)(dataset, checked.dropped)
    lengths = measure((row.prompt for row in rows.images), family.tokenize, family.max_tokens)
    images = grouped_by_what_is_read(rows.images, lengths)
    split = split_by_group(images, validation_fraction=spec.training.validation_fraction, seed=spec.seed)
    _refuse_one_class(dataset.path, method, split.train)
    yield DatasetChecked(
        report=report.model_dump(mode="json"),
        num_training_examples=len(split.train),
        num_validation_examples=len(split.validation),
    )
    resolution = method.transform.resolution or family.resolution
    yield from data_warnings(report, images, lengths, resolution)
    yield PhaseChanged(phase="caching")
    size = spec.evaluation.batch_size
    encoding = yield from choose_encoding(
        family,
        vae_precision,
        lambda: first_images(rows.reader, split.train, num_images=1, resolution=resolution, batch_size=size),
        dataset_sha256=report.content_sha256,
        resolution=resolution,
        cache_dir=cache_dir,
        notes=None if shelves is None else shelves.notes,
        ranks=ranks,
    )
    prompts = list(dict.fromkeys(row.prompt for row in split.validation))
    if sample is not None:
        liked, disliked = ([row for row in split.train if row.liked is wanted] for wanted in (True, False))
        few = sample.of_classes(*(rows for rows in (liked, disliked) if rows))
        few = sorted(few, key=attrgetter("number"))  # forwards, as the dataset is read
        train = yield from _prepare(
            spec, method, family, encoding, rows, cache_dir, sample.shelves, ranks, None, images_disk, few
        )
        return ImageSplits(train, None, prompts, report.content_sha256, encoding.precision)
    contents = contents_of(dataset, cache_dir, shelves)
    prepared = partial(_prepare, spec, method, family, encoding, rows, cache_dir, shelves, ranks, contents, images_disk)
    train = yield from prepared(split.train)
    validation = (yield from prepared(split.validation)) if split.validation else None
    return ImageSplits(train, validation, prompts, report.content_sha256, encoding.precision)


def _judged(dataset: Located, dropped: frozenset[int]) -> _Rows:
    source = open_unpaired(dataset.path, dataset.columns)
    return _Rows(source, source.is_seekable, read_judged_images(source, dropped))


def _of_pairs(dataset: Located, dropped: frozenset[int]) -> _Rows:
    source = open_preferences(dataset.path, dataset.columns)
    return _Rows(source, source.is_seekable, images_of_pairs(read_annotations(source, ties="drop", dropped=dropped)))


def _refuse_one_class(path: Path, method: ImageMethodSpec, images: Sequence[ImageAnnotation]) -> None:
    wanted = method.like_probability
    if wanted is None:
        return
    has_likes, has_dislikes = any(row.liked for row in images), any(not row.liked for row in images)
    if (wanted > 0 and not has_likes) or (wanted < 1 and not has_dislikes):
        missing = "liked" if not has_likes else "disliked"
        raise DataError(
            "one_class",
            f"{path.name}: method.like_probability is {wanted:g}, and no {missing} image is left to train on",
            hint="Set method.like_probability to null to take the images as they are.",
        )


def _prepare(
    spec: JobSpec,
    method: ImageMethodSpec,
    family: Family,
    encoding: ImageEncoding,
    rows: _Rows,
    cache_dir: Path,
    shelves: Shelves | None,
    ranks: Ranks,
    contents: Contents | None,
    images_disk: Disk | None,
    images: Sequence[ImageAnnotation],
) -> Generator[Event, None, JudgedImages]:
    transform = method.transform
    resolution = transform.resolution or family.resolution
    return (
        yield from JudgedImages.prepare(
            rows.reader,
            images,
            is_seekable=rows.is_seekable,
            encode_images=encoding.encode,
            encode_prompts=family.encode_prompts,
            image_fingerprint=encoding.fingerprint,
            prompt_fingerprint=family.prompt_fingerprint(),
            resolution=resolution,
            crop=transform.crop,
            horizontal_flip=transform.horizontal_flip,
            cache_dir=cache_dir,
            batch_size=spec.evaluation.batch_size,
            image_conditioning=lambda frames: family.image_conditioning(frames, resolution),
            shelves=shelves,
            ranks=ranks,
            contents=contents,
            images_disk=images_disk,
        )
    )
