"""Arrow shards as `datasets.save_to_disk` writes them: streams of record batches, mapped into memory and not read whole.

Only uncompressed streams are read, which is what that function writes: then nothing in a batch can be larger than the file.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from alignment_core.datasets.columnar import RowGroup
from alignment_core.datasets.files import Buffer
from alignment_core.datasets.parquet import embedded_images, readable, refuse_repeated
from alignment_core.errors import DataError

FORM = "Arrow stream"
ROWS_AT_ONCE = 256


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
    batches: tuple[pa.RecordBatch, ...]

    @property
    def groups(self) -> list[RowGroup]:
        return [ArrowBatch(batch) for batch in self.batches]


def open_arrow(name: str, content: Buffer) -> ArrowShard:
    """A shard. Raises `DataError`: `unreadable_file`, and `unsafe_archive` for a compressed stream."""
    with readable(name, FORM):
        schema = pa.ipc.open_stream(pa.py_buffer(content)).schema
        refuse_repeated(name, schema.names)
        return ArrowShard(name, tuple(schema.names), embedded_images(schema), tuple(_batches(name, schema, content)))


def _batches(name: str, schema: pa.Schema, content: Buffer) -> Iterator[pa.RecordBatch]:
    if any(pa.types.is_dictionary(column.type) for column in schema):
        raise DataError("unreadable_file", f"{name}: columns of dictionaries are not read; write the values themselves")
    for message in pa.ipc.MessageReader.open_stream(pa.BufferReader(pa.py_buffer(content))):
        if message.type != "record batch":
            continue
        if _is_compressed(message):
            raise DataError(
                "unsafe_archive", f"{name}: its batches are compressed; expected them as save_to_disk writes"
            )
        batch = pa.ipc.read_record_batch(message, schema)
        batch.validate(full=True)  # offsets that lead out of its buffers would be read as they are
        yield batch


def _is_compressed(message: pa.ipc.Message) -> bool:
    """Whether the batch has a BodyCompression, the fourth field of the table in the third of the flatbuffer `Message`."""
    data = message.metadata.to_pybytes()
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
