"""A parquet file that unpacks to far more than it has and than it says."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS_OF_A_GROUP = 64


def write_bomb(path: Path, unpacked_bytes: int, column: str = "prompt") -> Path:
    """Text of a MiB a row, each another one, in a thousandth of it; its footer says of every chunk that it unpacks to next to nothing."""
    long = "x" * (1 << 20)
    schema = pa.schema([(column, pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=False, write_statistics=False) as writer:
        for first in range(0, unpacked_bytes >> 20, ROWS_OF_A_GROUP):
            rows = [f"{number} {long}" for number in range(first, first + ROWS_OF_A_GROUP)]
            writer.write_table(pa.table({column: rows}, schema))
    _say_little(path)
    return path


def _say_little(path: Path) -> None:
    """`total_uncompressed_size` as a number of as many bytes: thrift's integers may be written longer than they need."""
    metadata = pq.read_metadata(path)
    sizes = {metadata.row_group(index).column(0).total_uncompressed_size for index in range(metadata.num_row_groups)}
    content = path.read_bytes()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    footer = content[start:]
    for size in sizes:
        told = _varint(size)
        assert told in footer
        footer = footer.replace(told, bytes([0x80 | 2, *[0x80] * (len(told) - 2), 0]))
    path.write_bytes(content[:start] + footer)


def _varint(value: int) -> bytes:
    """Of thrift's compact protocol: zigzag, seven bits a byte, the lowest first."""
    left, found = value << 1, bytearray()
    while left > 0x7F:
        found.append(0x80 | left & 0x7F)
        left >>= 7
    return bytes([*found, left])
