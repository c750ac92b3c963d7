"""Arrow shards as `datasets.save_to_disk` writes them: streams of record batches, mapped into memory and not read whole; where the
file cannot be mapped, a batch is read when its rows are.

Only uncompressed streams are read, which is what that function writes: then nothing in a batch can be larger than the file.
"""

import io
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from alignment_core.datasets.by_offset import Stretch
from alignment_core.datasets.columnar import RowGroup
from alignment_core.datasets.files import Buffer
from alignment_core.datasets.parquet import embedded_images, readable, refuse_repeated
from alignment_core.errors import DataError

FORM = "Arrow stream"
ROWS_AT_ONCE = 256
RECORD_BATCH = 3  # of the union MessageHeader in Arrow's format/Message.fbs
CONTINUES = 0xFFFFFFFF  # before the length of a message


@dataclass(frozen=True)
class ArrowBatch:
    """`columnar.RowGroup` over one record batch; its buffers are the file's own pages."""

    batch: pa.RecordBatch

    @property
    def num_rows(self) -> int:
        return self.batch.num_rows

    def values(self, columns: Sequence[str]) -> Iterator[dict[str, object]]:
        return self._iterate(columns, ROWS_AT_ONCE)

    def images(self, columns: Sequence[str]) -> Iterator[dict[str, object]]:
        return self._iterate(columns, 1)

    def _iterate(self, columns: Sequence[str], rows_at_once: int) -> Iterator[dict[str, object]]:
        chosen = self.batch.select(list(columns))
        for start in range(0, self.num_rows, rows_at_once):
            with readable("a batch", FORM):
                rows = chosen.slice(start, rows_at_once).to_pylist()
            yield from rows


@dataclass(frozen=True)
class ArrowShard:
    """`columnar.Shard`; made by `open_arrow`."""

    name: str
    columns: tuple[str, ...]
    embedded: frozenset[str]
    groups: tuple[RowGroup, ...]


@dataclass(frozen=True)
class UnreadBatch:
    """`columnar.RowGroup` over a record batch that is read, and checked, each time that its rows are."""

    name: str
    schema: pa.Schema
    message: Stretch
    num_rows: int

    def values(self, columns: Sequence[str]) -> Iterator[dict[str, object]]:
        return self._batch().values(columns)

    def images(self, columns: Sequence[str]) -> Iterator[dict[str, object]]:
        return self._batch().images(columns)

    def _batch(self) -> ArrowBatch:
        with readable(self.name, FORM), self.message.open() as handle:
            batch = pa.ipc.read_record_batch(pa.ipc.read_message(handle), self.schema)
            batch.validate(full=True)
        if batch.num_rows != self.num_rows:
            raise DataError(
                "unreadable_file", f"{self.name}: a batch has {batch.num_rows} rows and says {self.num_rows}"
            )
        return ArrowBatch(batch)


def open_arrow(name: str, content: Buffer | Stretch) -> ArrowShard:
    """A shard. Raises `DataError`: `unreadable_file`, and `unsafe_archive` for a compressed stream."""
    with readable(name, FORM):
        if isinstance(content, Stretch):
            with content.open() as handle:
                schema = pa.ipc.open_stream(handle).schema
        else:
            schema = pa.ipc.open_stream(pa.py_buffer(content)).schema
        refuse_repeated(name, schema.names)
        _refuse_dictionaries(name, schema)
        groups: Iterator[RowGroup] = (
            _unread_batches(name, schema, content)
            if isinstance(content, Stretch)
            else map(ArrowBatch, _batches(name, schema, content))
        )
        return ArrowShard(name, tuple(schema.names), embedded_images(schema), tuple(groups))


def _refuse_dictionaries(name: str, schema: pa.Schema) -> None:
    if any(pa.types.is_dictionary(column.type) for column in schema):
        raise DataError("unreadable_file", f"{name}: columns of dictionaries are not read; write the values themselves")


def _unread_batches(name: str, schema: pa.Schema, content: Stretch) -> Iterator[UnreadBatch]:
    """By the messages' heads alone: of a message's body no more than its length is asked."""
    at = 0
    with content.open() as handle:
        while (head := _head(handle, at)) is not None:
            data, body_at = head
            (root,) = struct.unpack_from("<I", data, 0)
            kind, body = _field(data, root, 1), _field(data, root, 3)
            end = body_at + (struct.unpack_from("<q", data, body)[0] if body is not None else 0)
            if not at < end <= content.size_bytes:
                raise DataError("unreadable_file", f"{name}: not a readable {FORM}: it ends in the middle of a batch")
            if kind is not None and data[kind] == RECORD_BATCH:
                _refuse_compressed(name, data)
                yield UnreadBatch(name, schema, content.part(at, end - at), _rows_of(data, root))
            at = end


def _head(handle: BinaryIO, at: int) -> tuple[bytes, int] | None:
    """A message's flatbuffer, and where its body begins; None at the end of the stream."""
    handle.seek(at, io.SEEK_SET)
    prefix = handle.read(8)
    (size,) = struct.unpack_from("<I", prefix) if len(prefix) >= 4 else (0,)
    start = at + 4
    if size == CONTINUES and len(prefix) == 8:
        (size,) = struct.unpack_from("<I", prefix, 4)
        start = at + 8
    if size in (0, CONTINUES):
        return None
    handle.seek(start)
    data = handle.read(size)
    if len(data) < size:
        raise OSError("a message is cut off")
    return data, start + size


def _rows_of(data: bytes, root: int) -> int:
    """`length`, the first field of the RecordBatch in a Message."""
    header = _field(data, root, 2)
    (offset,) = struct.unpack_from("<I", data, header) if header is not None else (0,)
    length = None if header is None else _field(data, header + offset, 0)
    return 0 if length is None else struct.unpack_from("<q", data, length)[0]


def _batches(name: str, schema: pa.Schema, content: Buffer) -> Iterator[pa.RecordBatch]:
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(pa.py_buffer(content))):
        if message.type != "record batch":
            continue
        _refuse_compressed(name, message.metadata.to_pybytes())
        batch = pa.ipc.read_record_batch(message, schema)
        batch.validate(full=True)  # offsets that lead out of its buffers would be read as they are
        yield batch


def _refuse_compressed(name: str, data: bytes) -> None:
    if _is_compressed(data):
        raise DataError("unsafe_archive", f"{name}: its batches are compressed; expected them as save_to_disk writes")


def _is_compressed(data: bytes) -> bool:
    """Whether the batch has a BodyCompression, the fourth field of the table in the third of the flatbuffer `Message`."""
    (root,) = struct.unpack_from("<I", data, 0)
    header = _field(data, root, 2)
    if header is None:
        return False
    (offset,) = struct.unpack_from("<I", data, header)
    return _field(data, header + offset, 3) is not None


def _field(data: bytes, table: int, index: int) -> int | None:
    """Where a field of a flatbuffer's table is, by the table's list of offsets; None when it is not there."""
    (back,) = struct.unpack_from("<i", data, table)
    fields = table - back
    (size,) = struct.unpack_from("<H", data, fields)
    at = 4 + 2 * index
    if at >= size:
        return None
    (offset,) = struct.unpack_from("<H", data, fields + at)
    return table + offset if offset else None
