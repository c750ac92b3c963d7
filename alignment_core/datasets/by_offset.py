"""Bytes that are read by offset and are no file of this machine: all of what `in_parts.py` reads, or a stretch of it."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

BUFFER_BYTES = 2**16


@dataclass(frozen=True)
class Stretch:
    """`size_bytes` bytes, of which `read_at(start, size)` gives at least one and at most `size`, from any thread."""

    size_bytes: int
    read_at: Callable[[int, int], bytes]

    def open(self) -> BinaryIO:
        """A file with a position of its own."""
        return io.BufferedReader(_Handle(self), BUFFER_BYTES)

    def part(self, start: int, size_bytes: int) -> "Stretch":
        """A stretch of it; what lies behind its end is not there."""
        within = max(0, min(size_bytes, self.size_bytes - start))
        return Stretch(within, lambda at, size: self.read_at(start + at, size))


class _Handle(io.RawIOBase):
    def __init__(self, stretch: Stretch) -> None:
        self._stretch, self._at = stretch, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._stretch.size_bytes}[whence]
        if base + offset < 0:
            raise OSError(f"a seek to {base + offset}")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        wanted = max(0, min(len(view), self._stretch.size_bytes - self._at))
        data = self._stretch.read_at(self._at, wanted) if wanted else b""
        view[: len(data)] = data
        self._at += len(data)
        return len(data)
