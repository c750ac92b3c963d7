"""A zip archive as a stream of bytes: nothing is compressed (weights do not shrink) and nothing waits on disk."""

import io
import zipfile
from collections.abc import Iterable, Iterator
from typing import NamedTuple

# Zip has no earlier time. A fixed one makes the archive of a checkpoint the same bytes whenever it is asked for.
EPOCH = (1980, 1, 1, 0, 0, 0)
ZIP64_FROM_BYTES = 1 << 31


class Entry(NamedTuple):
    """A file of the archive; `chunks` is read once, when its turn comes."""

    path: str
    size_bytes: int
    chunks: Iterable[bytes]


class _Sink(io.RawIOBase):
    """Where zipfile writes and the response reads; it cannot seek, so sizes follow the data of each entry."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: "memoryview | bytes") -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        self._written += data
        return len(data)

    def drain(self) -> bytes:
        data, self._written = bytes(self._written), bytearray()
        return data


def stream_zip(entries: Iterable[Entry]) -> Iterator[bytes]:
    """The archive of `entries`, stored, in their order; memory use is that of one chunk."""
    sink = _Sink()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
        for entry in entries:
            info = zipfile.ZipInfo(entry.path, EPOCH)
            info.external_attr = 0o644 << 16
            with archive.open(info, "w", force_zip64=entry.size_bytes >= ZIP64_FROM_BYTES) as target:
                for chunk in entry.chunks:
                    target.write(chunk)
                    yield sink.drain()
    yield sink.drain()
