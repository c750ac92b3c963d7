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

from alignment_core.browsing import BrowsingWriter, ImageSide
from alignment_core.datasets.bad_rows import bad_row, drops, on_every_side
from alignment_core.datasets.cards import Album, Card, Look, card_of, shown_as
from alignment_core.datasets.detect import dataset_kind, open_preferences, open_unpaired
from alignment_core.datasets.problems import Problems
from alignment_core.datasets.rows import BadRow, PreferenceRow, Row
from alignment_core.datasets.tally import InspectedRow, Tally
from alignment_core.datasets.unpaired import ImageRow
from alignment_core.datasets.unpaired_tally import InspectedImage, UnpairedTally
from alignment_core.errors import DataError
from alignment_core.reports import DatasetReport
from alignment_core.spec.sources import OnBadRow

DECODING_THREADS = 4
ROWS_AT_ONCE = 16

PAIR: tuple[ImageSide, ImageSide] = ("chosen", "rejected")
SINGLE: tuple[ImageSide] = ("image",)

RowT = TypeVar("RowT", PreferenceRow, ImageRow)
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


def check_and_show(
    path: Path, columns: Mapping[str, str] | None, on_bad_row: OnBadRow, browsing: Path, filename: str
) -> DatasetReport:
    """The same, and in the pass in which the images are decoded a new file `browsing` with thumbnails and rows for people to look at.

    `filename` is what the owner calls the file. What makes `check_rows` raise leaves that file unfinished.
    """
    with BrowsingWriter(browsing) as writer:
        return check_rows(path, columns, on_bad_row, Album(writer, shown_as(path, filename))).report


def check_rows(
    path: Path,
    columns: Mapping[str, str] | None = None,
    on_bad_row: OnBadRow = "fail",
    album: Album | None = None,
) -> Checked:
    """Read the whole dataset at `path`, pairs or single judged images, and report what is in it; `columns` as in `detect`.

    What is wrong with a row is a problem in the report: an error, or with `drop` a warning that it is left out. What keeps
    the dataset from being read at all is raised, as `DataError`: an unknown format, a missing column, a damaged file, an
    unsafe archive.
    """
    dropped: list[int] | None = [] if drops(on_bad_row) else None
    unpaired = dataset_kind(path, columns) == "unpaired"
    report = _check_images(path, columns, dropped, album) if unpaired else _check_pairs(path, columns, dropped, album)
    if not dropped:
        return Checked(report, frozenset())
    return Checked(report.model_copy(update={"num_dropped_rows": len(dropped)}), frozenset(dropped))


def _check_pairs(
    path: Path, columns: Mapping[str, str] | None, dropped: list[int] | None, album: Album | None
) -> DatasetReport:
    source = open_preferences(path, columns)
    tally = Tally(source)
    for item, card in _inspect_all(source.read(source.annotations()), _inspect_pair, shows=album is not None):
        tally.add(_left_out(item, dropped))
        _show(card, tally.problems, album)
    return _finished(tally, album)


def _check_images(
    path: Path, columns: Mapping[str, str] | None, dropped: list[int] | None, album: Album | None
) -> DatasetReport:
    source = open_unpaired(path, columns)
    tally = UnpairedTally(source)
    for item, card in _inspect_all(source.read(source.annotations()), _inspect_image, shows=album is not None):
        tally.add(_left_out(item, dropped))
        _show(card, tally.problems, album)
    return _finished(tally, album)


def _show(card: Card, problems: Problems, album: Album | None) -> None:
    if album is not None:
        album.add(card, problems)


def _finished(tally: Tally | UnpairedTally, album: Album | None) -> DatasetReport:
    report = tally.report()
    if album is not None:
        album.finish(tally.problems)
    return report


def _left_out(item: Inspected | BadRow, dropped: list[int] | None) -> Inspected | BadRow:
    """The row itself; one with an error as a warning, with its number in `dropped`, if that is a list."""
    if dropped is None or not isinstance(item, BadRow) or item.severity == "warning":
        return item
    dropped.append(item.number)
    return replace(item, severity="warning", message=f"left out: {item.message}")


def _inspect_all(
    rows: Iterator[RowT | BadRow], inspect: Callable[[RowT, Look], Inspected], *, shows: bool
) -> Iterator[tuple[Inspected | BadRow, Card]]:
    def one(row: RowT | BadRow) -> tuple[Inspected | BadRow, Card]:
        look = Look(shows)
        if isinstance(row, BadRow):
            return row, card_of(row, look, is_usable=False)
        try:
            found = inspect(row, look)
        except DataError as error:
            return bad_row(row.number, error), card_of(row, look, is_usable=False)
        return found, card_of(row, look, is_usable=True)

    with ThreadPoolExecutor(DECODING_THREADS) as threads:
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            yield from threads.map(one, batch)


def _inspect_pair(row: PreferenceRow, look: Look) -> InspectedRow:
    sizes = _sizes(row, look, PAIR)
    hashes = hashlib.sha256(row.chosen).digest(), hashlib.sha256(row.rejected).digest()
    return InspectedRow(row.number, row.prompt, row.label, row.score, row.group_id, row.swapped, *hashes, *sizes)


def _inspect_image(row: ImageRow, look: Look) -> InspectedImage:
    (size,), sha256 = _sizes(row, look, SINGLE), hashlib.sha256(row.image).digest()
    return InspectedImage(row.number, row.prompt, row.liked, row.group_id, sha256, size)


def _sizes(row: Row, look: Look, sides: tuple[ImageSide, ...]) -> list[tuple[int, int]]:
    """The size of each of the row's images; a `DataError` speaks of every one that cannot be used."""
    return on_every_side(row.columns, list(zip(sides, row.images, strict=True)), lambda one: look.at(*one))
