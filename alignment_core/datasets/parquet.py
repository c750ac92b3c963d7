"""Parquet datasets: one file or a folder of shards, streamed by row group.

The columns are told by a layout: the canonical one here, Pick-a-Pic's in its own file. Images are in the file, as binary
columns or as the struct {bytes, path} that Hugging Face datasets write; a path alone is refused, since a parquet file
must not be able to name other files of the machine it is read on.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Generic

import pyarrow as pa
import pyarrow.parquet as pq

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

ANNOTATION_BATCH = 1024
IMAGE_BATCH = 1  # images are large, and dictionary encoding repeats one for free

LARGE_ROW_GROUP_BYTES = 64 * 2**20
MAX_COMPRESSION_RATIO = 100  # of large row groups; encoded images hardly compress


@dataclass(frozen=True)
class ParquetLayout(Generic[AnnotationT]):
    """Which columns a kind of file has, and how a row of them becomes an annotation."""

    format: DatasetFormat
    image_columns: tuple[str, ...]
    required: tuple[str, ...]
    optional: tuple[str, ...]
    annotate: Callable[[int, Mapping[str, object]], AnnotationT | BadRow]
    ignored: frozenset[str] = frozenset()

    @property
    def all_required(self) -> set[str]:
        return {*self.image_columns, *self.required}


def _annotate_canonical(number: int, values: Mapping[str, object]) -> Annotation | BadRow:
    return annotate(
        number,
        prompt=values["prompt"],
        first="chosen",
        second="rejected",
        label=values.get("label"),
        score=values.get("score"),
        group_id=values.get("group_id"),
    )


CANONICAL = ParquetLayout[Annotation](
    format="parquet",
    image_columns=("chosen", "rejected"),
    required=("prompt",),
    optional=("label", "score", "group_id"),
    annotate=_annotate_canonical,
)


@dataclass(frozen=True)
class _Shard:
    path: Path
    metadata: pq.FileMetaData
    columns: frozenset[str]

    def texts(self, columns: Sequence[str]) -> list[str]:
        """Those of `columns` that hold text. Read as dictionaries, a value that is repeated for free is held once."""
        leaves = [self.metadata.schema.column(index) for index in range(self.metadata.num_columns)]
        return [leaf.path for leaf in leaves if leaf.path in columns and leaf.physical_type == "BYTE_ARRAY"]


class ParquetSource(Generic[AnnotationT]):
    """`rows.Source` over parquet files. Raises `DataError` for files that are no parquet or lack a column."""

    def __init__(self, path: Path, files: Sequence[Path], layout: ParquetLayout[AnnotationT]) -> None:
        self._path = path
        self._layout = layout
        self._shards = [_open_shard(file, layout) for file in files]
        groups = [(shard, index) for shard in self._shards for index in range(shard.metadata.num_row_groups)]
        sizes = [shard.metadata.row_group(index).num_rows for shard, index in groups]
        starts = accumulate(sizes, initial=1)
        self._row_groups = [(start, *group) for start, size, group in zip(starts, sizes, groups, strict=False) if size]

    @property
    def path(self) -> Path:
        return self._path

    @property
    def format(self) -> DatasetFormat:
        return self._layout.format

    @property
    def is_seekable(self) -> bool:
        return False

    def size_bytes(self) -> int:
        return sum(shard.path.stat().st_size for shard in self._shards)

    def unread_columns(self) -> list[str]:
        """See `Source`."""
        known = {*self._layout.all_required, *self._layout.optional, *self._layout.ignored}
        return sorted({name for shard in self._shards for name in shard.columns} - known)

    def annotations(self) -> Iterator[AnnotationT | BadRow]:
        """See `Source`; images are not touched, as parquet stores columns apart."""
        wanted = (*self._layout.required, *self._layout.optional)
        for start, shard, group in self._row_groups:
            columns = [name for name in wanted if name in shard.columns]
            values = _iterate(shard, group, columns, ANNOTATION_BATCH, shard.texts(columns))
            for number, value in enumerate(values, start):
                yield self._annotate(number, value)

    def read(self, rows: Iterable[Annotated[RowT] | BadRow]) -> Iterator[RowT | BadRow]:
        """See `Source`; a row costs reading its row group up to it."""
        for index, members in groupby(rows, key=self._row_group_of):
            start, shard, group = self._row_groups[index]
            images = enumerate(_iterate(shard, group, list(self._layout.image_columns), IMAGE_BATCH, []), start)
            number, values = start - 1, dict[str, object]()
            for row in members:
                if isinstance(row, BadRow):
                    yield row
                    continue
                while number < row.number:  # a row may be asked for again, for another image of it
                    number, values = next(images)
                assert number == row.number, f"row {row.number} was asked for out of order"
                yield _attach(row, values)

    def _annotate(self, number: int, values: Mapping[str, object]) -> AnnotationT | BadRow:
        try:
            return self._layout.annotate(number, values)
        except DataError as error:
            return bad_row(number, error)

    def _row_group_of(self, row: Annotated[RowT] | BadRow) -> int:
        low, high = 0, len(self._row_groups)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self._row_groups[middle][0] <= row.number else (low, middle)
        return low


def parquet_columns(path: Path) -> list[str]:
    """Names of the columns of a parquet file."""
    with _readable(path):
        return list(pq.read_schema(path).names)


def _open_shard(path: Path, layout: ParquetLayout[AnnotationT]) -> _Shard:
    with _readable(path):
        metadata = pq.read_metadata(path)
        names = metadata.schema.to_arrow_schema().names
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise DataError("unreadable_file", f"{path.name}: column {repeated[0]} is there more than once")
    _refuse_bombs(path, metadata)
    columns = frozenset(names)
    if missing := sorted(layout.all_required - columns):
        raise DataError(
            "missing_column",
            f"{path.name}: no column {', '.join(missing)}; expected {', '.join(sorted(layout.all_required))}; "
            f"found {', '.join(sorted(columns))}",
        )
    return _Shard(path, metadata, columns)


def _refuse_bombs(path: Path, metadata: pq.FileMetaData) -> None:
    """Pages are decoded whole, so a row group that claims to grow a hundredfold is refused by its footer."""
    for group in range(metadata.num_row_groups):
        columns = [metadata.row_group(group).column(index) for index in range(metadata.num_columns)]
        uncompressed = sum(column.total_uncompressed_size for column in columns)
        compressed = sum(column.total_compressed_size for column in columns)
        if uncompressed > LARGE_ROW_GROUP_BYTES and uncompressed > MAX_COMPRESSION_RATIO * compressed:
            raise DataError(
                "unsafe_archive",
                f"{path.name}: row group {group} grows from {compressed:,} to {uncompressed:,} bytes; "
                f"expected at most {MAX_COMPRESSION_RATIO} times its size",
            )


def _iterate(
    shard: _Shard, group: int, columns: list[str], batch_rows: int, dictionaries: list[str]
) -> Iterator[dict[str, object]]:
    """The rows of one row group as Python values. What is read as a dictionary grows with what is read of the group."""
    with (
        _readable(shard.path),
        pq.ParquetFile(
            shard.path,
            metadata=shard.metadata,
            read_dictionary=dictionaries,
            pre_buffer=False,
            buffer_size=2**20,
        ) as file,
    ):
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=columns, use_threads=False):
            for index in range(batch.num_rows):
                yield {name: batch.column(name)[index].as_py() for name in columns}


def _attach(row: Annotated[RowT], values: Mapping[str, object]) -> RowT | BadRow:
    try:
        return row.with_images([_image_bytes(values[name], name) for name in row.places])
    except DataError as error:
        return bad_row(row.number, error)


def _image_bytes(value: object, column: str) -> bytes:
    data = value.get("bytes") if isinstance(value, dict) else value
    if data is None or data == b"":
        raise DataError("missing_image", f"{column} is empty; expected the bytes of an image in the file itself")
    if not isinstance(data, bytes):
        raise DataError("missing_image", f"{column} holds {type(data).__name__}; expected the bytes of an image")
    if len(data) > MAX_ENCODED_BYTES:
        raise DataError("image_too_large", f"{column} has {len(data)} bytes; expected at most {MAX_ENCODED_BYTES}")
    return data


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError("unreadable_file", f"{path.name}: not a readable parquet file: {error}") from error
