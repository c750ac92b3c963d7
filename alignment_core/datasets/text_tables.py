"""Tables of text with images beside them, by relative path, in a folder or a zip: jsonl, a JSON array, CSV and TSV.

A path is looked for beside the table's file, then from the top of the folder or zip, then in the folder that is called like the
file (`train.json` with the images in `train/`, as HPDv2 has it), then beside the file by its last part alone (ImageRewardDB's
files name the whole path from the top of the repository). Several files are read in the order of their names, and rows count on.
"""

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath

from alignment_core.datasets.bad_rows import bad_row, on_every_side
from alignment_core.datasets.delimited import delimited_rows
from alignment_core.datasets.files import FileTree
from alignment_core.datasets.images import MAX_ENCODED_BYTES
from alignment_core.datasets.json_rows import json_rows
from alignment_core.datasets.rows import Annotated, BadRow, DatasetFormat, RowT
from alignment_core.datasets.tables import TableRow
from alignment_core.errors import DataError

ROWS_SEARCHED = 1000  # for the columns that there are


class TextTable:
    """`tables.Table` over the text files `names` of a folder or zip."""

    has_one_schema = False
    is_seekable = True

    def __init__(
        self,
        files: FileTree,
        names: Sequence[str],
        form: DatasetFormat,
        notes: Sequence[str] = (),
        path: Path | None = None,
    ) -> None:
        self._files = files
        self._path = path or files.path
        self._names = names
        self.form: DatasetFormat = form
        self.notes = list(notes)
        self.is_typed = form in ("jsonl", "json")
        self.metadata_file = all(PurePosixPath(name).stem == "metadata" for name in names)

    @property
    def path(self) -> Path:
        return self._path

    @property
    def columns(self) -> list[str]:
        return self._columns

    @cached_property
    def _columns(self) -> list[str]:
        found = (row for _, row in islice(self._all(), ROWS_SEARCHED) if not isinstance(row, DataError))
        return list(dict.fromkeys(column for row in found for column in row))

    def require(self, columns: Sequence[str]) -> None:
        """Rows that lack a column are told one by one."""

    def size_bytes(self) -> int:
        return self._files.size_bytes()

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow | BadRow]:
        """See `Table`."""
        for number, (name, values) in enumerate(self._all(), 1):
            if isinstance(values, DataError):
                yield bad_row(number, values)
            else:
                yield self._row(number, values, PurePosixPath(name))

    def _row(self, number: int, values: Mapping[str, object], file: PurePosixPath) -> TableRow:
        def place(column: str, index: int | None) -> str:
            return self._image_path(values[column], column, index, file)

        return TableRow(number, values, place, lambda column: place(column, None))

    def read(self, rows: Iterable[Annotated[RowT] | BadRow], columns: Sequence[str]) -> Iterator[RowT | BadRow]:
        """See `Table`; every row costs its own files alone."""
        for row in rows:
            yield row if isinstance(row, BadRow) else self._with_images(row)

    def _with_images(self, row: Annotated[RowT]) -> RowT | BadRow:
        try:
            read = lambda name: self._files.read(name, MAX_ENCODED_BYTES)  # noqa: E731
            return row.with_images(on_every_side(row.columns, row.places, read))
        except DataError as error:
            return bad_row(row.number, error)

    def _all(self) -> Iterator[tuple[str, Mapping[str, object] | DataError]]:
        for name in self._names:
            read = delimited_rows if self.form in ("csv", "tsv") else json_rows
            for row in read(self._files, name):
                yield name, row

    def _image_path(self, value: object, column: str, index: int | None, file: PurePosixPath) -> str:
        path = value[index] if isinstance(value, list) and index is not None and index < len(value) else value
        return image_path(self._files, path, column, file)


def image_path(files: FileTree, path: object, column: str, file: PurePosixPath) -> str:
    """Where in `files` the image is that the table `file` calls `path`; raises `DataError("missing_image")`."""
    if isinstance(path, dict):  # the struct {bytes, path} of Hugging Face datasets, as JSON
        path = path.get("path")
    if not isinstance(path, str) or not path:
        raise DataError("missing_image", f"{column} is {path!r:.60}; expected the relative path of an image file")
    if path.startswith(("http://", "https://")):
        raise DataError(
            "missing_image",
            f"{column} is the address {path[:60]!r}; nothing is fetched from the network: download it and name the file",
        )
    beside = posixpath.join(str(file.parent), path) if file.parent.name else path
    if files.has(beside):
        return beside
    others = (path, str(file.with_suffix("") / path), str(file.parent / PurePosixPath(path).name))
    return next((name for name in others if files.has(name)), beside)
