"""jsonl datasets: one row a line, images beside it by relative path, in a folder or a zip.

A line is an object with `prompt`, `chosen`, `rejected` and, if wanted, `label`, `score`, `group_id`. Paths are relative to
the folder of the jsonl file. Blank lines do not count; several files are read in the order of their names.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from alignment_core.datasets.files import FileTree
from alignment_core.datasets.images import MAX_ENCODED_BYTES
from alignment_core.datasets.rows import (
    Annotation,
    BadRow,
    DatasetFormat,
    PreferenceRow,
    annotate,
    bad_row,
    with_images,
)
from alignment_core.errors import DataError

REQUIRED = ("prompt", "chosen", "rejected")
OPTIONAL = ("label", "score", "group_id")
LINES_SEARCHED = 1000  # for columns that are not read


class JsonlSource:
    """`rows.PreferenceSource` over jsonl files. Raises `DataError("unknown_format")` when the tree has none."""

    format: DatasetFormat = "jsonl"

    def __init__(self, files: FileTree) -> None:
        self._files = files
        self._names = files.jsonl_names()
        if not self._names:
            raise DataError("unknown_format", f"{files.path.name}: no *.jsonl file in it")

    @property
    def path(self) -> Path:
        return self._files.path

    @property
    def is_seekable(self) -> bool:
        return True

    def size_bytes(self) -> int:
        return self._files.size_bytes()

    def unread_columns(self) -> list[str]:
        """See `PreferenceSource`."""
        lines = (line for name in self._names for line in self._files.lines(name) if line.strip())
        found = {column for line in islice(lines, LINES_SEARCHED) for column in _columns(line)}
        return sorted(found - {*REQUIRED, *OPTIONAL})

    def annotations(self) -> Iterator[Annotation | BadRow]:
        """See `PreferenceSource`."""
        number = 0
        for name in self._names:
            folder = PurePosixPath(name).parent
            for line in self._files.lines(name):
                if line.strip():
                    number += 1
                    yield _annotation(number, line, folder)

    def read(self, rows: Iterable[Annotation | BadRow]) -> Iterator[PreferenceRow | BadRow]:
        """See `PreferenceSource`; every row costs its two files alone."""
        for row in rows:
            yield self._with_images(row) if isinstance(row, Annotation) else row

    def _with_images(self, row: Annotation) -> PreferenceRow | BadRow:
        try:
            return with_images(row, *(self._files.read(name, MAX_ENCODED_BYTES) for name in (row.chosen, row.rejected)))
        except DataError as error:
            return bad_row(row.number, error)


def _annotation(number: int, line: bytes, folder: PurePosixPath) -> Annotation | BadRow:
    try:
        values = _object(line)
        return annotate(
            number,
            prompt=values["prompt"],
            first=_image_path(values, "chosen", folder),
            second=_image_path(values, "rejected", folder),
            label=values.get("label"),
            score=values.get("score"),
            group_id=values.get("group_id"),
        )
    except DataError as error:
        return bad_row(number, error)


def _columns(line: bytes) -> Iterable[str]:
    try:
        return _object(line)
    except DataError:  # its row is reported as a bad one
        return ()


def _object(line: bytes) -> dict[str, object]:
    try:
        values = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise DataError("invalid_json", f"not JSON in UTF-8: {error}") from error
    if not isinstance(values, dict):
        raise DataError("invalid_json", f"{type(values).__name__}; expected an object with {', '.join(REQUIRED)}")
    if missing := [name for name in REQUIRED if name not in values]:
        raise DataError("missing_column", f"no {', '.join(missing)}; expected {', '.join(REQUIRED)}")
    return values


def _image_path(values: dict[str, object], column: str, folder: PurePosixPath) -> str:
    path = values[column]
    if not isinstance(path, str) or not path:
        raise DataError("missing_image", f"{column} is {path!r:.60}; expected the relative path of an image file")
    return str(folder / path)
