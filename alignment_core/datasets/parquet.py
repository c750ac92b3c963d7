"""Parquet shards: files of their own, or inside of a zip."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignment_core.datasets.by_offset import Stretch
from alignment_core.datasets.columnar import RowGroup
from alignment_core.datasets.files import Buffer
from alignment_core.errors import DataError

ANNOTATION_BATCH = 1024
IMAGE_BATCH = 1  # images are large, and dictionary encoding repeats one for free

LARGE_ROW_GROUP_BYTES = 64 * 2**20
MAX_COMPRESSION_RATIO = 100  # of large row groups; encoded images hardly compress


@dataclass(frozen=True)
class ParquetShard:
    """`columnar.Shard`; made by `open_parquet`."""

    name: str
    source: Path | Buffer | Stretch
    metadata: pq.FileMetaData
    columns: tuple[str, ...]
    embedded: frozenset[str]

    @property
    def groups(self) -> list[RowGroup]:
        return [ParquetRowGroup(self, index) for index in range(self.metadata.num_row_groups)]

    def texts(self, columns: Sequence[str]) -> list[str]:
        """Those of `columns` that hold text. Read as dictionaries, a value that is repeated for free is held once."""
        leaves = [self.metadata.schema.column(index) for index in range(self.metadata.num_columns)]
        return [leaf.path for leaf in leaves if leaf.path in columns and leaf.physical_type == "BYTE_ARRAY"]


@dataclass(frozen=True)
class ParquetRowGroup:
    """`columnar.RowGroup`."""

    shard: ParquetShard
    index: int

    @property
    def num_rows(self) -> int:
        return self.shard.metadata.row_group(self.index).num_rows

    def values(self, columns: Sequence[str]) -> Iterator[dict[str, object]]:
        return _iterate(self.shard, self.index, list(columns), ANNOTATION_BATCH, self.shard.texts(columns))

    def images(self, columns: Sequence[str]) -> Iterator[dict[str, object]]:
        return _iterate(self.shard, self.index, list(columns), IMAGE_BATCH, [])


def open_parquet(name: str, source: Path | Buffer | Stretch) -> ParquetShard:
    """A shard, whose footer is read and checked. Raises `DataError`: `unreadable_file` or `unsafe_archive`."""
    with readable(name):
        metadata = pq.read_metadata(opened(source))
        schema = metadata.schema.to_arrow_schema()
    refuse_repeated(name, schema.names)
    _refuse_bombs(name, metadata)
    return ParquetShard(name, source, metadata, tuple(schema.names), embedded_images(schema))


def embedded_images(schema: pa.Schema) -> frozenset[str]:
    """Columns of bytes, and of structs that have bytes in them."""
    return frozenset(column.name for column in schema if _holds_bytes(column.type))


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        return _holds_bytes(kind.value_type)
    if pa.types.is_struct(kind):
        return any(kind.field(index).name in ("bytes", "path") for index in range(kind.num_fields))
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def refuse_repeated(name: str, columns: Sequence[str]) -> None:
    if repeated := sorted({column for column in columns if list(columns).count(column) > 1}):
        raise DataError("unreadable_file", f"{name}: column {repeated[0]} is there more than once")


def opened(source: Path | Buffer | Stretch) -> Any:
    """What pyarrow reads from."""
    match source:
        case Path():
            return source
        case Stretch():
            return source.open()
        case _:
            return pa.BufferReader(pa.py_buffer(source))


def _refuse_bombs(name: str, metadata: pq.FileMetaData) -> None:
    """Pages are decoded whole, so a row group that claims to grow a hundredfold is refused by its footer."""
    for group in range(metadata.num_row_groups):
        columns = [metadata.row_group(group).column(index) for index in range(metadata.num_columns)]
        uncompressed = sum(column.total_uncompressed_size for column in columns)
        compressed = sum(column.total_compressed_size for column in columns)
        if uncompressed > LARGE_ROW_GROUP_BYTES and uncompressed > MAX_COMPRESSION_RATIO * compressed:
            raise DataError(
                "unsafe_archive",
                f"{name}: row group {group} grows from {compressed:,} to {uncompressed:,} bytes; "
                f"expected at most {MAX_COMPRESSION_RATIO} times its size",
            )


def _iterate(
    shard: ParquetShard, group: int, columns: list[str], batch_rows: int, dictionaries: list[str]
) -> Iterator[dict[str, object]]:
    """The rows of one row group as Python values. What is read as a dictionary grows with what is read of the group."""
    with (
        readable(shard.name),
        pq.ParquetFile(
            opened(shard.source),
            metadata=shard.metadata,
            read_dictionary=dictionaries,
            pre_buffer=False,
            buffer_size=2**20,
        ) as file,
    ):
        for batch in file.iter_batches(batch_rows, row_groups=[group], columns=columns, use_threads=False):
            for index in range(batch.num_rows):
                yield {name: batch.column(name)[index].as_py() for name in columns}


@contextmanager
def readable(name: str, form: str = "parquet file") -> Iterator[None]:
    """Turns what pyarrow raises into `DataError("unreadable_file")`."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError("unreadable_file", f"{name}: not a readable {form}: {error}") from error
