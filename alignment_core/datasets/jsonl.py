"""jsonl datasets: one row a line, images beside it by relative path, in a folder or a zip.

A line is an object with the columns of a layout: for pairs `prompt`, `chosen`, `rejected` and, if wanted, `label`, `score`,
`group_id`. Paths are relative to
the folder of the jsonl file. Blank lines do not count; several files are read in the order of their names.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Generic

from alignment_core.datasets.files import FileTree
from alignment_core.datasets.images import MAX_ENCODED_BYTES
from alignment_core.datasets.rows import (
    Annotated,
    Annotation,
    AnnotationT,
    BadRow,
    DatasetFormat,
    RowT,
    annotate,
    bad_row,
)
from alignment_core.errors import DataError

LINES_SEARCHED = 1000  # for columns that are not read


@dataclass(frozen=True)
class JsonlLayout(Generic[AnnotationT]):
    """Which columns a line has, and how they become an annotation; the last argument says where its images are."""

    image_columns: tuple[str, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    annotate: Callable[[int, Mapping[str, object], Sequence[str]], AnnotationT]


def _annotate_pair(number: int, values: Mapping[str, object], places: Sequence[str]) -> Annotation:
    first, second = places
    return annotate(
        number,
        prompt=values["prompt"],
        first=first,
        second=second,
        label=values.get("label"),
        score=values.get("score"),
        group_id=values.get("group_id"),
    )


PAIR_LINES = JsonlLayout(
    image_columns=("chosen", "rejected"),
    required=("prompt", "chosen", "rejected"),
    optional=("label", "score", "group_id"),
    annotate=_annotate_pair,
)


class JsonlSource(Generic[AnnotationT]):
    """`rows.Source` over jsonl files. Raises `DataError("unknown_format")` when the tree has none."""

    format: DatasetFormat = "jsonl"

    def __init__(self, files: FileTree, layout: JsonlLayout[AnnotationT]) -> None:
        self._files = files
        self._layout = layout
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
        """See `Source`."""
        found = {column for line in islice(_lines(self._files), LINES_SEARCHED) for column in _columns(line)}
        return sorted(found - {*self._layout.required, *self._layout.optional})

    def annotations(self) -> Iterator[AnnotationT | BadRow]:
        """See `Source`."""
        number = 0
        for name in self._names:
            folder = PurePosixPath(name).parent
            for line in self._files.lines(name):
                if line.strip():
                    number += 1
                    yield self._annotation(number, line, folder)

    def read(self, rows: Iterable[Annotated[RowT] | BadRow]) -> Iterator[RowT | BadRow]:
        """See `Source`; every row costs its own files alone."""
        for row in rows:
            yield row if isinstance(row, BadRow) else self._with_images(row)

    def _with_images(self, row: Annotated[RowT]) -> RowT | BadRow:
        try:
            return row.with_images([self._files.read(name, MAX_ENCODED_BYTES) for name in row.places])
        except DataError as error:
            return bad_row(row.number, error)

    def _annotation(self, number: int, line: bytes, folder: PurePosixPath) -> AnnotationT | BadRow:
        layout = self._layout
        try:
            values = _object(line, layout.required)
            places = [_image_path(values, column, folder) for column in layout.image_columns]
            return layout.annotate(number, values, places)
        except DataError as error:
            return bad_row(number, error)


def jsonl_columns(files: FileTree) -> list[str]:
    """The columns of the first line that is an object; none when there is none."""
    return next((columns for line in islice(_lines(files), LINES_SEARCHED) if (columns := _columns(line))), [])


def _lines(files: FileTree) -> Iterator[bytes]:
    return (line for name in files.jsonl_names() for line in files.lines(name) if line.strip())


def _columns(line: bytes) -> list[str]:
    try:
        return list(_object(line, ()))
    except DataError:  # its row is reported as a bad one
        return []


def _object(line: bytes, required: Sequence[str]) -> dict[str, object]:
    try:
        values = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise DataError("invalid_json", f"not JSON in UTF-8: {error}") from error
    if not isinstance(values, dict):
        raise DataError("invalid_json", f"{type(values).__name__}; expected an object with {', '.join(required)}")
    if missing := [name for name in required if name not in values]:
        raise DataError("missing_column", f"no {', '.join(missing)}; expected {', '.join(required)}")
    return values


def _image_path(values: dict[str, object], column: str, folder: PurePosixPath) -> str:
    path = values[column]
    if not isinstance(path, str) or not path:
        raise DataError("missing_image", f"{column} is {path!r:.60}; expected the relative path of an image file")
    return str(folder / path)
