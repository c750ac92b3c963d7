"""Tables of columns: shards of rows in groups, streamed group by group, with the images in the file.

An image is a column of bytes or the struct {bytes, path} of Hugging Face datasets. A path alone is followed only inside the
folder or zip that the shards came in; for a lone file it is refused, since a file must not be able to name other files of
the machine that it is read on.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Protocol

from alignment_core.datasets.bad_rows import OF_THE_FILE, bad_row, on_every_side
from alignment_core.datasets.files import FileTree
from alignment_core.datasets.images import MAX_ENCODED_BYTES
from alignment_core.datasets.limits import refuse_many
from alignment_core.datasets.rows import Annotated, BadRow, DatasetFormat, RowT
from alignment_core.datasets.tables import TableRow
from alignment_core.datasets.text_tables import image_path
from alignment_core.errors import DataError

OF_A_FILE = "\0"  # how the place of an image that is a file of its own starts; the place of any other is its column
OF_A_ROW = "\0"  # between the column and the number of a row that may be another than the one that asks
OF_PANDAS = frozenset({"__index_level_0__", "Unnamed: 0"})  # columns that it adds when it saves
KEPT_BYTES = 256 * 2**20  # of images of rows that are asked for again and again, as those of a ranking are


class RowGroup(Protocol):
    """Rows that are read forwards from their first."""

    @property
    def num_rows(self) -> int: ...

    def values(self, columns: Sequence[str]) -> Iterator[dict[str, object]]:
        """The rows' values but for images."""
        ...

    def images(self, columns: Sequence[str]) -> Iterator[dict[str, object]]:
        """The rows' images as they are stored; one row is in memory at a time."""
        ...


class Shard(Protocol):
    """A file of row groups."""

    @property
    def name(self) -> str:
        """Its name in the folder or zip, or the file's own."""
        ...

    @property
    def columns(self) -> Sequence[str]: ...

    @property
    def embedded(self) -> frozenset[str]:
        """Columns that may hold the bytes of images."""
        ...

    @property
    def groups(self) -> Sequence[RowGroup]: ...


class ColumnarTable:
    """`tables.Table` over shards; `files` is what paths of images are looked for in, if anything."""

    is_typed = True
    has_one_schema = True
    is_seekable = False

    def __init__(
        self,
        path: Path,
        shards: Sequence[Shard],
        form: DatasetFormat,
        *,
        size_bytes: int,
        files: FileTree | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.path = path
        self.form: DatasetFormat = form
        self.notes = list(notes)
        self.metadata_file = files is not None and all(PurePosixPath(one.name).stem == "metadata" for one in shards)
        self._shards = shards
        self._files = files
        self._size_bytes = size_bytes
        refuse_many(path.name, sum(group.num_rows for shard in shards for group in shard.groups))
        groups = [(shard, group) for shard in shards for group in shard.groups if group.num_rows]
        starts = accumulate((group.num_rows for _, group in groups), initial=1)
        self._groups = [(start, *one) for start, one in zip(starts, groups, strict=False)]

    @property
    def columns(self) -> list[str]:
        found = (column for shard in self._shards for column in shard.columns)
        return [column for column in dict.fromkeys(found) if column not in OF_PANDAS]

    def require(self, columns: Sequence[str]) -> None:
        for shard in self._shards:
            if missing := sorted(set(columns) - set(shard.columns)):
                raise DataError(
                    "missing_column",
                    f"{shard.name}: no column {', '.join(missing)}; expected {', '.join(sorted(columns))}; "
                    f"found {', '.join(sorted(shard.columns))}",
                )

    def size_bytes(self) -> int:
        return self._size_bytes

    def rows(self, columns: Sequence[str]) -> Iterator[TableRow | BadRow]:
        """See `Table`; images are not touched, as columns are stored apart."""
        for start, shard, group in self._groups:
            wanted = [name for name in columns if name in shard.columns and name not in shard.embedded]
            values = group.values(wanted) if wanted else ({} for _ in range(group.num_rows))
            for number, value in enumerate(values, start):
                yield self._row(number, value, shard)

    def _row(self, number: int, values: Mapping[str, object], shard: Shard) -> TableRow:
        def place(column: str, index: int | None) -> str:
            if column in shard.embedded:
                return column
            value = values.get(column)
            path = value[index] if isinstance(value, list) and index is not None and index < len(value) else value
            return self._file_of(path, column, shard)

        def shared_place(column: str) -> str:
            found = place(column, None)
            return f"{found}{OF_A_ROW}{number}" if column in shard.embedded else found

        return TableRow(number, values, place, shared_place)

    def _file_of(self, path: object, column: str, shard: Shard) -> str:
        if self._files is None:
            raise DataError(
                "missing_image",
                f"{column} holds {type(path).__name__}; expected the bytes of an image in the file itself",
            )
        return OF_A_FILE + image_path(self._files, path, column, PurePosixPath(shard.name))

    def read(self, rows: Iterable[Annotated[RowT] | BadRow], columns: Sequence[str]) -> Iterator[RowT | BadRow]:
        """See `Table`; a row costs reading its row group up to it."""
        images = _Images(self._groups, columns)
        for row in rows:
            yield row if isinstance(row, BadRow) else self._with_images(row, images)

    def _with_images(self, row: Annotated[RowT], images: "_Images") -> RowT | BadRow:
        try:
            read = lambda place: self._image(row.number, place, images)  # noqa: E731
            return row.with_images(on_every_side(row.columns, row.places, read))
        except DataError as error:
            if error.code in OF_THE_FILE:
                raise
            return bad_row(row.number, error)

    def _image(self, number: int, place: str, images: "_Images") -> bytes:
        if place.startswith(OF_A_FILE) and self._files is not None:
            return self._files.read(place.removeprefix(OF_A_FILE), MAX_ENCODED_BYTES)
        column, _, other = place.partition(OF_A_ROW)
        images.keep_rows |= bool(other)
        value, shard = images.value(int(other or number), column)
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None and isinstance(value, dict) and value.get("path") and self._files is not None:
            place = self._file_of(value["path"], column, shard)
            return self._files.read(place.removeprefix(OF_A_FILE), MAX_ENCODED_BYTES)
        return _checked_bytes(data, column)


class _Images:
    """Images by row and column. Rows are read forwards; one that was just read, or is still kept, costs nothing."""

    def __init__(self, groups: Sequence[tuple[int, Shard, RowGroup]], columns: Sequence[str]) -> None:
        self._groups = groups
        self._columns = columns
        self._kept: OrderedDict[int, tuple[dict[str, object], Shard]] = OrderedDict()
        self._kept_bytes = 0
        self.keep_rows = False
        self._group = -1
        self._number = 0
        self._values: Iterator[dict[str, object]] = iter(())

    def value(self, number: int, column: str) -> tuple[object, Shard]:
        if number not in self._kept:
            self._read_to(number)
        values, shard = self._kept[number]
        return values.get(column), shard

    def _read_to(self, number: int) -> None:
        index = self._group_of(number)
        start, shard, group = self._groups[index]
        if index != self._group or number <= self._number:
            columns = [name for name in self._columns if name in shard.embedded]
            self._group, self._number, self._values = index, start - 1, group.images(columns)
        while self._number < number - 1:
            next(self._values)
            self._number += 1
        self._number = number
        self._keep(number, next(self._values), shard)

    def _keep(self, number: int, values: dict[str, object], shard: Shard) -> None:
        self._kept[number] = values, shard
        self._kept_bytes += _num_bytes(values)
        while len(self._kept) > 1 and (self._kept_bytes > KEPT_BYTES or not self.keep_rows):
            _, (dropped, _) = self._kept.popitem(last=False)
            self._kept_bytes -= _num_bytes(dropped)

    def _group_of(self, number: int) -> int:
        low, high = 0, len(self._groups)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._groups[middle][0] <= number else (low, middle)
        return low


def _num_bytes(values: Mapping[str, object]) -> int:
    cells = (value.get("bytes") if isinstance(value, dict) else value for value in values.values())
    return sum(len(cell) for cell in cells if isinstance(cell, bytes))


def _checked_bytes(data: object, column: str) -> bytes:
    if data is None or data == b"":
        raise DataError("missing_image", f"{column} is empty; expected the bytes of an image in the file itself")
    if not isinstance(data, bytes):
        raise DataError("missing_image", f"{column} holds {type(data).__name__}; expected the bytes of an image")
    if len(data) > MAX_ENCODED_BYTES:
        raise DataError("image_too_large", f"{column} has {len(data)} bytes; expected at most {MAX_ENCODED_BYTES}")
    return data
