"""From a spec's dataset to pairs that are checked, split and cached."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import assert_never

from alignment_core.datasets.bad_rows import read_annotations
from alignment_core.datasets.contents import Contents
from alignment_core.datasets.detect import open_preferences
from alignment_core.datasets.hub import download_dataset
from alignment_core.datasets.in_parts import is_in_parts
from alignment_core.datasets.notes import Notes
from alignment_core.datasets.pairs import PreferencePairs
from alignment_core.datasets.preflight import Checked
from alignment_core.datasets.prompt_lengths import grouped_by_what_is_read, measure
from alignment_core.datasets.remembered import check_rows_once, state_of
from alignment_core.datasets.shelf import Disk, Shelves
from alignment_core.datasets.splits import split_by_group
from alignment_core.datasets.warnings import data_warnings
from alignment_core.errors import DataError
from alignment_core.events import DatasetChecked, Event, PhaseChanged
from alignment_core.families.family import Family
from alignment_core.load.preparation import preparation_of
from alignment_core.load.sample import Sample
from alignment_core.ranks import ALONE, Ranks
from alignment_core.reports import DatasetReport
from alignment_core.spec import HubDataset, JobSpec, LocalDataset, PairMethodSpec, StoredDataset
from alignment_core.spec.sources import OnBadRow, Role
from alignment_core.spec.training import Precision


@dataclass(frozen=True)
class PairSplits:
    """Pairs to train on and pairs held out; the latter may be none."""

    train: PreferencePairs
    validation: PreferencePairs | None
    validation_prompts: list[str]
    dataset_sha256: str
    vae_precision: Precision


def load_pairs(
    spec: JobSpec,
    method: PairMethodSpec,
    family: Family,
    cache_dir: Path,
    shelves: Shelves | None = None,
    ranks: Ranks = ALONE,
    sample: Sample | None = None,
    vae_precision: Precision | None = "fp32",
    images_disk: Disk | None = None,
) -> Generator[Event, None, PairSplits]:
    """Check, split and cache the pairs of the spec's dataset; yields progress and returns both sides. What is encoded is
    on `shelves`, which others may share, or in `cache_dir`, where images are copied to as far as `images_disk` allows. Of a `sample` nothing is held out, though prompts are. Without a
    `vae_precision` it is measured.

    Raises `DataError`, naming the rows, when the dataset cannot be trained on.
    """
    dataset, checked = ranks.after_first(lambda: checked_dataset(method.dataset, cache_dir, shelves))
    report = checked.report
    _refuse_single_images(report, dataset.path, method)
    source = open_preferences(dataset.path, dataset.columns)
    rows = read_annotations(source, ties=method.ties, dropped=checked.dropped)
    lengths = measure((row.prompt for row in rows), family.tokenize, family.max_tokens)
    rows = grouped_by_what_is_read(rows, lengths)
    split = split_by_group(rows, validation_fraction=spec.training.validation_fraction, seed=spec.seed)
    yield DatasetChecked(
        report=report.model_dump(mode="json"),
        num_training_examples=len(split.train),
        num_validation_examples=len(split.validation),
    )
    yield from data_warnings(report, rows, lengths, method.transform.resolution or family.resolution)
    yield PhaseChanged(phase="caching")
    how, precision = yield from preparation_of(
        spec,
        method.transform,
        family,
        source,
        split.train,
        num_images=2,
        dataset_sha256=report.content_sha256,
        vae_precision=vae_precision,
        cache_dir=cache_dir,
        shelves=shelves,
        ranks=ranks,
        images_disk=images_disk,
    )
    prompts, joint = list(dict.fromkeys(row.prompt for row in split.validation)), method.transform.joint
    if sample is not None:
        how = replace(how, shelves=sample.shelves)
        train = yield from PreferencePairs.prepare(source, sample.of(split.train), how, joint=joint)
        return PairSplits(train, None, prompts, report.content_sha256, precision)
    how = replace(how, contents=contents_of(dataset, cache_dir, shelves))
    train = yield from PreferencePairs.prepare(source, split.train, how, joint=joint)
    validation = None
    if split.validation:
        validation = yield from PreferencePairs.prepare(source, split.validation, how, joint=joint)
    return PairSplits(train, validation, prompts, report.content_sha256, precision)


def _refuse_single_images(report: DatasetReport, path: Path, method: PairMethodSpec) -> None:
    if report.kind != "pairs":
        raise DataError(
            "dataset_unpaired",
            f"{path.name}: its rows are single images, and {method.type} learns from pairs: prompt, chosen, rejected",
            hint="Use the method diffusion_kto, which learns from liked and disliked images.",
        )


def checked_dataset(
    dataset: LocalDataset | StoredDataset | HubDataset, cache_dir: Path, shelves: Shelves | None = None
) -> tuple["Located", Checked]:
    """Where the dataset is, and what was found in it; see `located` and `usable`."""
    here = located(dataset, cache_dir)
    return here, usable(here, cache_dir, _notes(here, shelves))


def contents_of(dataset: "Located", cache_dir: Path, shelves: Shelves | None = None) -> Contents:
    """What is remembered of the images of these files, as they are."""
    state = state_of(dataset.path, dataset.columns, dataset.on_bad_row)
    return Contents(cache_dir / "contents", state, _notes(dataset, shelves))


def _notes(dataset: "Located", shelves: Shelves | None) -> Notes | None:
    """Shared of a file that is read in parts, whose state is its content; others have their place and time in theirs."""
    return shelves.notes if shelves is not None and is_in_parts(dataset.path) else None


def usable(dataset: "Located", cache_dir: Path, notes: Notes | None = None) -> Checked:
    """The preflight report and the rows that are left out; raises `DataError`, naming the rows, when the dataset cannot be trained on."""
    checked = check_rows_once(dataset.path, cache_dir, dataset.columns, dataset.on_bad_row, notes)
    if not checked.report.is_usable:
        raise DataError("dataset_unusable", f"{dataset.path.name}: {_errors_of(checked.report)}")
    return checked


def _errors_of(report: DatasetReport) -> str:
    errors = [problem for problem in report.problems if problem.severity == "error"]
    return "; ".join(f"{problem.message} (rows {_shown(problem.rows)})" for problem in errors) or "no row can be used"


def _shown(rows: list[int]) -> str:
    return ", ".join(map(str, rows[:10])) + (", ..." if len(rows) > 10 else "")


@dataclass(frozen=True)
class Located:
    """Where a dataset is on this machine, and how its columns are read."""

    path: Path
    columns: Mapping[str, str] | None
    on_bad_row: OnBadRow = "fail"


def located(dataset: LocalDataset | StoredDataset | HubDataset, cache_dir: Path) -> Located:
    """Where a dataset is, downloaded if it is on the Hub; raises `DataError` for an id that nobody has resolved."""
    match dataset:
        case LocalDataset(path=path, columns=columns, on_bad_row=on_bad_row):
            return Located(Path(path), _by_role(columns), on_bad_row)
        case HubDataset(repo_id=repo_id, revision=revision, columns=columns, on_bad_row=on_bad_row):
            return Located(download_dataset(repo_id, revision, cache_dir), _by_role(columns), on_bad_row)
        case StoredDataset(id=dataset_id):
            raise DataError(
                "dataset_not_resolved",
                f"method.dataset {dataset_id}: ids are resolved by the service, not by a local run",
            )
        case _:
            assert_never(dataset)


def _by_role(columns: Mapping[Role, str] | None) -> Mapping[str, str] | None:
    return None if columns is None else {str(role): name for role, name in columns.items()}
