"""A folder as a zip that is made while it is read: nothing of it is on disk, and little in memory.

Two readings of a folder that has not changed give the same bytes, so that an upload can be repeated under its key.
Images do not compress, so nothing is compressed; shards can then be read in place.
"""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

CHUNK_BYTES = 2**20
EARLIEST = (1980, 1, 1, 0, 0, 0)  # that a zip can tell


def size_of_folder(folder: Path) -> int:
    """Bytes of what is in its zip, whose own words come on top."""
    return sum(file.stat().st_size for file in _files(folder))


class FolderZip:
    """A file to read forwards once. Raises `ValueError` for an empty folder, and for a link that leads out of it."""

    def __init__(self, folder: Path) -> None:
        self._sink = _Sink()
        self._pieces = self._write(_files(folder), folder)

    def read(self, size: int = -1) -> bytes:
        while size < 0 or len(self._sink.waiting) < size:
            if next(self._pieces, None) is None:
                break
        size = len(self._sink.waiting) if size < 0 else size
        taken, self._sink.waiting = bytes(self._sink.waiting[:size]), self._sink.waiting[size:]
        return taken

    def __iter__(self) -> Iterator[bytes]:
        while chunk := self.read(CHUNK_BYTES):
            yield chunk

    def _write(self, files: list[Path], folder: Path) -> Iterator[bool]:
        sink = cast(IO[bytes], self._sink)
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
            for file in files:
                entry = zipfile.ZipInfo(file.relative_to(folder).as_posix(), EARLIEST)
                large = file.stat().st_size >= zipfile.ZIP64_LIMIT
                with file.open("rb") as source, archive.open(entry, "w", force_zip64=large) as target:
                    while chunk := source.read(CHUNK_BYTES):
                        target.write(chunk)
                        yield True
        yield True


class _Sink:
    """What the archive is written to: it cannot be sought in, and keeps what nobody has read yet."""

    def __init__(self) -> None:
        self.waiting = bytearray()

    def write(self, data: bytes) -> int:
        self.waiting += data
        return len(data)

    def flush(self) -> None:
        pass


def _files(folder: Path) -> list[Path]:
    """The files of the folder, in the order of their names, but for hidden ones."""
    root = folder.resolve()
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            file = Path(place) / name
            if name.startswith(".") or not file.is_file():
                continue
            if not file.resolve().is_relative_to(root):
                raise ValueError(f"{file} is a link that leads out of {folder}; copy the file there (cp -L)")
            found.append(file)
    if not found:
        raise ValueError(f"{folder} has no file to upload")
    return sorted(found, key=lambda file: file.relative_to(folder).as_posix())
