"""Preflight: everything that can be said about a dataset before any GPU time is spent. Imports no torch.

One pass in order over the rows; every image is decoded. Problems are counted with their row numbers, and nothing is dropped
silently: an error makes the dataset unusable until it is mended, a warning is for the owner to weigh.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

from alignment_core.datasets.bad_rows import bad_row, drops, on_every_side
from alignment_core.datasets.detect import dataset_kind, open_preferences, open_unpaired
from alignment_core.datasets.images import decode_image
from alignment_core.datasets.rows import BadRow, PreferenceRow, Row
from alignment_core.datasets.tally import InspectedRow, Tally
from alignment_core.datasets.unpaired import ImageRow
from alignment_core.datasets.unpaired_tally import InspectedImage, UnpairedTally
from alignment_core.errors import DataError
from alignment_core.reports import DatasetReport
from alignment_core.spec.sources import OnBadRow

DECODING_THREADS = 4
ROWS_AT_ONCE = 16


RowT = TypeVar("RowT", bound=Row)
Inspected = TypeVar("Inspected")


@dataclass(frozen=True)
class Checked:
    """The report, and the numbers of the rows that are left out because of an error."""

    report: DatasetReport
    dropped: frozenset[int]


def check_preferences(
    path: Path, columns: Mapping[str, str] | None = None, on_bad_row: OnBadRow = "fail"
) -> DatasetReport:
    """The report of `check_rows`."""
    return check_rows(path, columns, on_bad_row).report


def check_rows(path: Path, columns: Mapping[str, str] | None = None, on_bad_row: OnBadRow = "fail") -> Checked:
    """Read the whole dataset at `path`, pairs or single judged images, and report what is in it; `columns` as in `detect`.

    What is wrong with a row is a problem in the report: an error, or with `drop` a warning that it is left out. What keeps
    the dataset from being read at all is raised, as `DataError`: an unknown format, a missing column, a damaged file, an
    unsafe archive.
    """
    dropped: list[int] | None = [] if drops(on_bad_row) else None
    unpaired = dataset_kind(path, columns) == "unpaired"
    report = _check_images(path, columns, dropped) if unpaired else _check_pairs(path, columns, dropped)
    if not dropped:
        return Checked(report, frozenset())
    return Checked(report.model_copy(update={"num_dropped_rows": len(dropped)}), frozenset(dropped))


def _check_pairs(path: Path, columns: Mapping[str, str] | None, dropped: list[int] | None) -> DatasetReport:
    source = open_preferences(path, columns)
    tally = Tally(source)
    for item in _inspect_all(source.read(source.annotations()), _inspect_pair):
        tally.add(_left_out(item, dropped))
    return tally.report()


def _check_images(path: Path, columns: Mapping[str, str] | None, dropped: list[int] | None) -> DatasetReport:
    source = open_unpaired(path, columns)
    tally = UnpairedTally(source)
    for item in _inspect_all(source.read(source.annotations()), _inspect_image):
        tally.add(_left_out(item, dropped))
    return tally.report()


def _left_out(item: Inspected | BadRow, dropped: list[int] | None) -> Inspected | BadRow:
    """The row itself; one with an error as a warning, with its number in `dropped`, if that is a list."""
    if dropped is None or not isinstance(item, BadRow) or item.severity == "warning":
        return item
    dropped.append(item.number)
    return replace(item, severity="warning", message=f"left out: {item.message}")


def _inspect_all(rows: Iterator[RowT | BadRow], inspect: Callable[[RowT], Inspected]) -> Iterator[Inspected | BadRow]:
    def one(row: RowT | BadRow) -> Inspected | BadRow:
        if isinstance(row, BadRow):
            return row
        try:
            return inspect(row)
        except DataError as error:
            return bad_row(row.number, error)

    with ThreadPoolExecutor(DECODING_THREADS) as threads:
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            yield from threads.map(one, batch)


def _inspect_pair(row: PreferenceRow) -> InspectedRow:
    sizes = _sizes(row)
    hashes = hashlib.sha256(row.chosen).digest(), hashlib.sha256(row.rejected).digest()
    return InspectedRow(row.number, row.prompt, row.label, row.score, row.group_id, row.swapped, *hashes, *sizes)


def _inspect_image(row: ImageRow) -> InspectedImage:
    (size,), sha256 = _sizes(row), hashlib.sha256(row.image).digest()
    return InspectedImage(row.number, row.prompt, row.liked, row.group_id, sha256, size)


def _sizes(row: Row) -> list[tuple[int, int]]:
    """The size of each of the row's images; a `DataError` speaks of every one that cannot be used."""
    return on_every_side(row.columns, row.images, lambda data: decode_image(data).size)
