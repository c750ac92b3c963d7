"""The files a dataset is made of, by relative name: a folder here, a zip in `archives.py`.

Names come from users. A name is relative, has forward slashes and no `..`, and may not lead out of the folder through a
link.
"""

import lzma
import mmap
import os
import unicodedata
import zipfile
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from alignment_core.datasets.by_offset import Stretch
from alignment_core.errors import DataError

Buffer = mmap.mmap | memoryview | bytes

MAX_LINE_BYTES = 2**20

# What reading a damaged file raises; the last five come from archives.
READ_ERRORS = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError)


class FileTree(Protocol):
    """Files by relative name."""

    @property
    def path(self) -> Path: ...

    def names(self, suffixes: Collection[str]) -> list[str]:
        """The files with one of the suffixes, in any folder, sorted."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is such a file, which `read` may still refuse; never raises."""
        ...

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a text file; raises `DataError` when it is damaged or a line has no end."""
        ...

    def chunks(self, name: str) -> Iterator[bytes]:
        """The file in parts of at most `MAX_LINE_BYTES`; raises `DataError` when it is damaged."""
        ...

    def read(self, name: str, max_bytes: int) -> bytes:
        """The whole file. Raises `DataError`: `unsafe_path`, `missing_image` or `image_too_large`."""
        ...

    def mapped(self, name: str) -> Buffer | Stretch:
        """The whole file without reading it: pages come as they are touched. For formats that are read by offset."""
        ...

    def size_bytes(self) -> int: ...


class FolderFiles:
    """`FileTree` over a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._root = path.resolve()

    @property
    def path(self) -> Path:
        return self._path

    def names(self, suffixes: Collection[str]) -> list[str]:
        found = [
            (Path(folder) / file).relative_to(self._path).as_posix()
            for folder, _, files in os.walk(self._path)
            for file in files
            if file.lower().endswith(tuple(suffixes))
        ]
        return sorted(name for name in found if not is_clutter(name))

    def has(self, name: str) -> bool:
        try:  # links are followed and refused by whoever opens the file: twice for every row would be slow
            return any((self._root / safe_name(one)).is_file() for one in spellings(name))
        except (DataError, OSError, ValueError):
            return False

    def lines(self, name: str) -> Iterator[bytes]:
        with self._open(name) as handle:
            yield from read_lines(handle, name)

    def chunks(self, name: str) -> Iterator[bytes]:
        with self._open(name) as handle:
            yield from read_chunks(handle, name)

    def read(self, name: str, max_bytes: int) -> bytes:
        with self._open(name) as handle:
            return read_limited(handle, name, max_bytes)

    def mapped(self, name: str) -> Buffer:
        with self._open(name) as handle:
            return map_file(handle)

    def size_bytes(self) -> int:
        files = (entry for entry in self._path.rglob("*") if entry.is_file() and not entry.is_symlink())
        return sum(entry.stat().st_size for entry in files)

    def _open(self, name: str) -> BinaryIO:
        paths = [self.real_path(one) for one in spellings(name)]
        try:
            for path in paths:
                if path.is_file():  # opening a named pipe would wait forever
                    return path.open("rb")
        except (OSError, ValueError) as error:
            raise _unopenable(name, error) from error
        raise DataError("missing_image", f"no file {name[:200]!r} in the folder {self._path.name}")

    def real_path(self, name: str) -> Path:
        """Where the file is; raises `DataError` for a name or a link that leads out of the folder."""
        safe = safe_name(name)
        try:
            path = (self._root / safe).resolve()
        except (OSError, ValueError, RuntimeError) as error:  # links in a circle were a RuntimeError before 3.13
            raise _unopenable(name, error) from error
        if not path.is_relative_to(self._root):
            raise DataError("unsafe_path", f"{name[:200]!r} leads out of the folder {self._path.name}")
        return path


def _unopenable(name: str, error: BaseException) -> DataError:
    return DataError("missing_image", f"{name[:200]!r} cannot be opened: {error}")


def map_file(handle: BinaryIO) -> Buffer:
    """The content of an open file, which may be closed afterwards."""
    size = os.fstat(handle.fileno()).st_size
    return mmap.mmap(handle.fileno(), size, access=mmap.ACCESS_READ) if size else b""


def is_clutter(name: str) -> bool:
    """What macOS adds to archives and folders, and what hides."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def spellings(name: str) -> tuple[str, ...]:
    """The name as it is, and in the other forms of Unicode: macOS writes an umlaut as two characters, most others as one."""
    return tuple(dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD")))))


def safe_name(name: str) -> str:
    """`name` in its shortest form; raises `DataError("unsafe_path")` for one that is not plainly relative."""
    path = PurePosixPath(name)
    has_drive = name[1:2] == ":"
    if not path.parts or path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or has_drive:
        raise DataError("unsafe_path", f"{name[:200]!r}: expected a relative path with forward slashes, without '..'")
    return str(path)


def read_lines(handle: BinaryIO, name: str) -> Iterator[bytes]:
    """Lines of `handle`, none longer than `MAX_LINE_BYTES`."""
    try:
        while line := handle.readline(MAX_LINE_BYTES + 1):
            if len(line) > MAX_LINE_BYTES:
                raise DataError("unreadable_file", f"{name}: expected lines of at most {MAX_LINE_BYTES} bytes")
            yield line
    except READ_ERRORS as error:
        raise DataError("unreadable_file", f"{name} is damaged: {error}") from error


def read_chunks(handle: BinaryIO, name: str) -> Iterator[bytes]:
    """All of `handle`, in parts."""
    try:
        while chunk := handle.read(MAX_LINE_BYTES):
            yield chunk
    except READ_ERRORS as error:
        raise DataError("unreadable_file", f"{name} is damaged: {error}") from error


def read_limited(handle: BinaryIO, name: str, max_bytes: int) -> bytes:
    """All of `handle`, which may not hold more than `max_bytes`."""
    try:
        data = handle.read(max_bytes + 1)
    except READ_ERRORS as error:
        raise DataError("missing_image", f"{name[:200]!r} is damaged: {error}") from error
    if len(data) > max_bytes:
        raise DataError("image_too_large", f"{name[:200]!r} has more than {max_bytes} bytes")
    return data
