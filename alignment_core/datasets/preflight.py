"""Preflight: everything that can be said about a dataset before any GPU time is spent. Imports no torch.

One pass in order over the rows; every image is decoded. Problems are counted with their row numbers, and nothing is dropped
silently: an error makes the dataset unusable until it is mended, a warning is for the owner to weigh.
"""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from alignment_core.datasets.detect import open_preferences
from alignment_core.datasets.images import decode_image
from alignment_core.datasets.rows import BadRow, PreferenceRow, PreferenceSource, bad_row
from alignment_core.datasets.tally import InspectedRow, Tally
from alignment_core.errors import DataError
from alignment_core.reports import DatasetReport

DECODING_THREADS = 4
ROWS_AT_ONCE = 16


def check_preferences(path: Path) -> DatasetReport:
    """Read the whole dataset at `path` and report what is in it.

    What is wrong with a row is a problem in the report. What keeps the dataset from being read at all is raised, as
    `DataError`: an unknown format, a missing column, a damaged file, an unsafe archive.
    """
    source = open_preferences(path)
    tally = Tally(source)
    for item in _inspect_all(source):
        tally.add(item)
    return tally.report()


def _inspect_all(source: PreferenceSource) -> Iterator[InspectedRow | BadRow]:
    rows = source.read(source.annotations())
    with ThreadPoolExecutor(DECODING_THREADS) as threads:
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            yield from threads.map(_inspect, batch)


def _inspect(row: PreferenceRow | BadRow) -> InspectedRow | BadRow:
    if isinstance(row, BadRow):
        return row
    try:
        sizes = _size(row.chosen, "chosen"), _size(row.rejected, "rejected")
    except DataError as error:
        return bad_row(row.number, error)
    hashes = hashlib.sha256(row.chosen).digest(), hashlib.sha256(row.rejected).digest()
    return InspectedRow(row.number, row.prompt, row.label, row.score, row.group_id, row.swapped, *hashes, *sizes)


def _size(data: bytes, column: str) -> tuple[int, int]:
    try:
        return decode_image(data).size
    except DataError as error:
        raise DataError(error.code, f"{column}: {error.message}") from error
