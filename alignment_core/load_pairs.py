"""From a spec's dataset to pairs that are checked, split and cached."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from alignment_core.datasets.detect import open_preferences
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.datasets.remembered import check_preferences_once
from alignment_core.datasets.rows import Annotation, PreferenceSource, read_annotations
from alignment_core.datasets.splits import split_by_group
from alignment_core.errors import DataError
from alignment_core.events import DatasetChecked, Event, PhaseChanged
from alignment_core.families.sd import StableDiffusion
from alignment_core.reports import DatasetReport
from alignment_core.spec import DiffusionDPOSpec, JobSpec, LocalDataset, StoredDataset, TransformSpec


@dataclass(frozen=True)
class PairSplits:
    """Pairs to train on and pairs held out; the latter may be none."""

    train: PreferencePairs
    validation: PreferencePairs | None
    validation_prompts: list[str]
    dataset_sha256: str


def load_pairs(
    spec: JobSpec, method: DiffusionDPOSpec, family: StableDiffusion, cache_dir: Path
) -> Generator[Event, None, PairSplits]:
    """Check, split and cache the pairs of the spec's dataset; yields progress and returns both sides.

    Raises `DataError`, naming the rows, when the dataset cannot be trained on.
    """
    path = _dataset_path(method.dataset)
    source = open_preferences(path)
    report = check_preferences_once(path, cache_dir)
    if not report.is_usable:
        raise DataError("dataset_unusable", f"{path.name}: {_errors_of(report)}")
    rows = read_annotations(source, ties=method.ties)
    split = split_by_group(rows, validation_fraction=spec.training.validation_fraction, seed=spec.seed)
    yield DatasetChecked(
        report=report.model_dump(mode="json"),
        num_training_examples=len(split.train),
        num_validation_examples=len(split.validation),
    )
    yield PhaseChanged(phase="caching")
    encoders = f"{family.encoder_fingerprint()}/{family.text_encoder.dtype}"
    train = yield from _prepare_pairs(spec, method.transform, family, encoders, source, split.train, cache_dir)
    validation = None
    if split.validation:
        validation = yield from _prepare_pairs(
            spec, method.transform, family, encoders, source, split.validation, cache_dir
        )
    prompts = list(dict.fromkeys(row.prompt for row in split.validation))
    return PairSplits(train, validation, prompts, report.content_sha256)


def _errors_of(report: DatasetReport) -> str:
    errors = [problem for problem in report.problems if problem.severity == "error"]
    return "; ".join(f"{problem.message} (rows {_shown(problem.rows)})" for problem in errors) or "no row can be used"


def _shown(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")


def _prepare_pairs(
    spec: JobSpec,
    transform: TransformSpec,
    family: StableDiffusion,
    encoders: str,
    source: PreferenceSource,
    rows: Sequence[Annotation],
    cache_dir: Path,
) -> Generator[Event, None, PreferencePairs]:
    return (
        yield from PreferencePairs.prepare(
            source,
            rows,
            encode_images=family.encode_images,
            encode_prompts=family.encode_prompts,
            model_fingerprint=encoders,
            resolution=transform.resolution or family.resolution,
            crop=transform.crop,
            horizontal_flip=transform.horizontal_flip,
            joint=transform.joint,
            cache_dir=cache_dir,
            batch_size=spec.evaluation.batch_size,
        )
    )


def _dataset_path(dataset: LocalDataset | StoredDataset) -> Path:
    match dataset:
        case LocalDataset(path=path):
            return Path(path)
        case StoredDataset(id=dataset_id):
            raise DataError(
                "dataset_not_resolved",
                f"method.dataset {dataset_id}: ids are resolved by the service, not by a local run",
            )
        case _:
            assert_never(dataset)
