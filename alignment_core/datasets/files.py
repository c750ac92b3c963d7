"""The files a jsonl dataset is made of, by relative name: a folder here, a zip in `archives.py`.

Names come from users. A name is relative, has forward slashes and no `..`, and may not lead out of the folder through a
link.
"""

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from alignment_core.errors import DataError

MAX_LINE_BYTES = 2**20

# What reading a damaged file raises; the last five come from archives.
READ_ERRORS = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError)


class FileTree(Protocol):
    """Files by relative name."""

    @property
    def path(self) -> Path: ...

    def jsonl_names(self) -> list[str]:
        """The `*.jsonl` files at the shallowest level that has any, sorted."""
        ...

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a text file; raises `DataError` when it is damaged or a line has no end."""
        ...

    def read(self, name: str, max_bytes: int) -> bytes:
        """The whole file. Raises `DataError`: `unsafe_path`, `missing_image` or `image_too_large`."""
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

    def jsonl_names(self) -> list[str]:
        return sorted(entry.name for entry in self._path.glob("*.jsonl") if entry.is_file())

    def lines(self, name: str) -> Iterator[bytes]:
        with self._open(name) as handle:
            yield from read_lines(handle, name)

    def read(self, name: str, max_bytes: int) -> bytes:
        with self._open(name) as handle:
            return read_limited(handle, name, max_bytes)

    def size_bytes(self) -> int:
        files = (entry for entry in self._path.rglob("*") if entry.is_file() and not entry.is_symlink())
        return sum(entry.stat().st_size for entry in files)

    def _open(self, name: str) -> BinaryIO:
        try:
            path = (self._root / safe_name(name)).resolve()
            is_file = path.is_file()  # opening a named pipe would wait forever
            if path.is_relative_to(self._root) and is_file:
                return path.open("rb")
        except (OSError, ValueError, RuntimeError) as error:  # links in a circle were a RuntimeError before 3.13
            raise DataError("missing_image", f"{name[:200]!r} cannot be opened: {error}") from error
        if not path.is_relative_to(self._root):
            raise DataError("unsafe_path", f"{name[:200]!r} leads out of the folder {self._path.name}")
        raise DataError("missing_image", f"no file {name[:200]!r} in the folder {self._path.name}")


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


def read_limited(handle: BinaryIO, name: str, max_bytes: int) -> bytes:
    """All of `handle`, which may not hold more than `max_bytes`."""
    try:
        data = handle.read(max_bytes + 1)
    except READ_ERRORS as error:
        raise DataError("missing_image", f"{name[:200]!r} is damaged: {error}") from error
    if len(data) > max_bytes:
        raise DataError("image_too_large", f"{name[:200]!r} has more than {max_bytes} bytes")
    return data
