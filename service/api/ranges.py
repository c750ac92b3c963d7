"""Byte ranges of one representation, after RFC 9110 section 14: one range is answered, several are answered in full."""

import re
from typing import NamedTuple

_RANGE = re.compile(r"^bytes=\s*(\d{0,18})-(\d{0,18})\s*$", re.ASCII | re.IGNORECASE)


class ByteRange(NamedTuple):
    """`length` bytes from `start`."""

    start: int
    length: int

    def content_range(self, size_bytes: int) -> str:
        return f"bytes {self.start}-{self.start + self.length - 1}/{size_bytes}"


class RangeNotSatisfiableError(ValueError):
    """The range lies behind the last byte."""


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The part that a `Range` header asks for, or None where the whole is to be sent.

    A header that is no byte range, is malformed, or names several ranges is ignored, as the RFC allows. Raises
    `RangeNotSatisfiableError` when the range is well formed and no byte of it exists.
    """
    match = _RANGE.match(header or "")
    if match is None or match[1] == match[2] == "":
        return None
    first, last = match[1], match[2]
    if first == "":
        start, stop = max(0, size_bytes - int(last)), size_bytes
    elif last and int(last) < int(first):
        return None
    else:
        start, stop = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
    if start >= stop:
        raise RangeNotSatisfiableError(header)
    return ByteRange(start, stop - start)
