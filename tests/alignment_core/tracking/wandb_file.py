"""The offline file of wandb, read without its client: the log format of LevelDB (records in blocks of 32 KiB) behind a header of 7 bytes."""

import struct
from collections.abc import Iterator
from pathlib import Path

from wandb.proto.wandb_internal_pb2 import Record

BLOCK, HEADER = 32 * 1024, struct.Struct("<IHB")  # checksum, length, type
FULL, LAST = 1, 4


def records_of(path: Path) -> Iterator[Record]:
    content, place, found = path.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while place + HEADER.size <= len(content):
        if BLOCK - place % BLOCK < HEADER.size:  # no header fits any more: the block ends in zeros
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(content, place)
        found += content[place + HEADER.size : place + HEADER.size + length]
        place += HEADER.size + length
        if kind in (FULL, LAST):
            yield Record.FromString(found)
            found = b""
