"""From a spec's dataset to judged images that are checked, split and cached; pairs are read as a like and a dislike each."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path

from alignment_core.datasets.bad_rows import read_annotations
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
from alignment_core.load.preparation import preparation_of
from alignment_core.load.sample import Sample
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
    yield from data_warnings(report, images, lengths, method.transform.resolution or family.resolution)
    yield PhaseChanged(phase="caching")
    how, precision = yield from preparation_of(
        spec,
        method.transform,
        family,
        rows.reader,
        split.train,
        num_images=1,
        dataset_sha256=report.content_sha256,
        vae_precision=vae_precision,
        cache_dir=cache_dir,
        shelves=shelves,
        ranks=ranks,
        images_disk=images_disk,
    )
    prompts = list(dict.fromkeys(row.prompt for row in split.validation))
    if sample is not None:
        how = replace(how, shelves=sample.shelves)
        train = yield from JudgedImages.prepare(
            rows.reader, _few_of(sample, split.train), how, is_seekable=rows.is_seekable
        )
        return ImageSplits(train, None, prompts, report.content_sha256, precision)
    how = replace(how, contents=contents_of(dataset, cache_dir, shelves))
    train = yield from JudgedImages.prepare(rows.reader, split.train, how, is_seekable=rows.is_seekable)
    validation = None
    if split.validation:
        validation = yield from JudgedImages.prepare(rows.reader, split.validation, how, is_seekable=rows.is_seekable)
    return ImageSplits(train, validation, prompts, report.content_sha256, precision)


def _few_of(sample: Sample, images: Sequence[ImageAnnotation]) -> Sequence[ImageAnnotation]:
    """Of both classes, where there are both; forwards, as the dataset is read."""
    classes = ([row for row in images if row.liked is wanted] for wanted in (True, False))
    return sorted(sample.of_classes(*(rows for rows in classes if rows)), key=attrgetter("number"))


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
