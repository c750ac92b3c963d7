"""A zip archive whose every byte is known before any file is read: its length, its hash, and any part of it.

Nothing is compressed (weights do not shrink) and nothing waits on disk. What a header says of a file, its size and CRC-32,
is in the database, so that a broken download goes on from any byte. The format is PKWARE's APPNOTE 6.3.3; sizes and places
from 4 GiB on are in zip64 fields.
"""

import hashlib
import struct
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

# Zip has no earlier time than 1980. A fixed one makes the archive of a checkpoint the same bytes whenever it is asked for.
DOS_TIME, DOS_DATE = 0, 1 << 5 | 1
VERSION_ZIP64 = 45
UNIX = 3 << 8
UTF8_NAMES = 1 << 11
REGULAR_FILE = 0o100644 << 16
FIELD_IS_IN_ZIP64 = 0xFFFFFFFF
COUNT_IS_IN_ZIP64 = 0xFFFF


class Member(NamedTuple):
    """A file of the archive; `open_range` gives its bytes from a place up to and without another."""

    path: str
    size_bytes: int
    sha256: str
    crc32: int
    open_range: Callable[[int, int], Iterator[bytes]]


class Segment(NamedTuple):
    """A part of the archive that follows the one before it."""

    size_bytes: int
    open_range: Callable[[int, int], Iterator[bytes]]


class Archive:
    """The members, stored in their order."""

    def __init__(self, members: Sequence[Member]) -> None:
        self._segments = list(_segments(members))
        self.size_bytes = sum(segment.size_bytes for segment in self._segments)
        named = "\n".join(f"{member.size_bytes} {member.sha256} {member.path}" for member in members)
        self.sha256_of_contents = hashlib.sha256(f"zip 1\n{named}".encode()).hexdigest()

    def open_range(self, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to and without `end`; a file is opened when its turn comes."""
        stop, position = self.size_bytes if end is None else end, 0
        for segment in self._segments:
            first, last = max(start - position, 0), min(stop - position, segment.size_bytes)
            if first < last:
                yield from segment.open_range(first, last)
            position += segment.size_bytes


def _segments(members: Sequence[Member]) -> Iterator[Segment]:
    headers = [_local_header(member) for member in members]
    sizes = [len(header) + member.size_bytes for header, member in zip(headers, members, strict=True)]
    offsets = [0, *accumulate(sizes)]
    for header, member in zip(headers, members, strict=True):
        yield _bytes(header)
        yield Segment(member.size_bytes, member.open_range)
    directory = b"".join(_directory_entry(member, offset) for member, offset in zip(members, offsets, strict=False))
    yield _bytes(directory + _end(len(members), len(directory), offsets[-1]))


def _bytes(content: bytes) -> Segment:
    return Segment(len(content), lambda first, last: iter((content[first:last],)))


def _local_header(member: Member) -> bytes:
    name = member.path.encode()
    large = member.size_bytes >= FIELD_IS_IN_ZIP64
    size = FIELD_IS_IN_ZIP64 if large else member.size_bytes
    extra = struct.pack("<HHQQ", 1, 16, member.size_bytes, member.size_bytes) if large else b""
    fixed = (VERSION_ZIP64, UTF8_NAMES, 0, DOS_TIME, DOS_DATE, member.crc32, size, size, len(name), len(extra))
    return struct.pack("<4s5H3I2H", b"PK\x03\x04", *fixed) + name + extra


def _directory_entry(member: Member, offset: int) -> bytes:
    name, extra = member.path.encode(), b""
    size, place = member.size_bytes, offset
    if size >= FIELD_IS_IN_ZIP64:
        extra, size = struct.pack("<QQ", size, size), FIELD_IS_IN_ZIP64
    if place >= FIELD_IS_IN_ZIP64:
        extra, place = extra + struct.pack("<Q", place), FIELD_IS_IN_ZIP64
    if extra:
        extra = struct.pack("<HH", 1, len(extra)) + extra
    made_by = (UNIX | VERSION_ZIP64, VERSION_ZIP64, UTF8_NAMES, 0, DOS_TIME, DOS_DATE)
    lengths = (len(name), len(extra), 0, 0, 0)
    return (
        struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *made_by, member.crc32, size, size, *lengths, REGULAR_FILE, place)
        + name
        + extra
    )


def _end(count: int, directory_size: int, directory_place: int) -> bytes:
    zip64 = b""
    if count >= COUNT_IS_IN_ZIP64 or directory_place + directory_size >= FIELD_IS_IN_ZIP64:
        end_place = directory_place + directory_size
        counts = (count, count, directory_size, directory_place)
        zip64 = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, UNIX | VERSION_ZIP64, VERSION_ZIP64, 0, 0, *counts)
        zip64 += struct.pack("<4sIQI", b"PK\x06\x07", 0, end_place, 1)
    shown = min(count, COUNT_IS_IN_ZIP64)
    size, place = min(directory_size, FIELD_IS_IN_ZIP64), min(directory_place, FIELD_IS_IN_ZIP64)
    return zip64 + struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, shown, shown, size, place, 0)
