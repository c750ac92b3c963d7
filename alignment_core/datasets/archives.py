"""Zip archives, read in place: nothing is ever unpacked to disk.

An archive with links, absolute or `..` names, encrypted or doubled entries, or more inside than its limits allow is
refused as a whole, before anything in it is read. What an entry announces as its size is what can be read of it.
"""

import io
import stat
import struct
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from alignment_core.datasets.files import READ_ERRORS, read_limited, read_lines, safe_name
from alignment_core.errors import DataError


@dataclass(frozen=True)
class ZipLimits:
    """What a zip may hold. Images hardly compress, so a high ratio is a bomb; small archives may have any."""

    entries: int = 4_000_000
    directory_bytes: int = 512 * 2**20
    uncompressed_bytes: int = 512 * 2**30
    ratio: float = 100.0
    ratio_free_bytes: int = 64 * 2**20


class ZipFiles:
    """`files.FileTree` over a zip archive. Raises `DataError` with `unreadable_file` or `unsafe_archive`."""

    def __init__(self, path: Path, limits: ZipLimits | None = None) -> None:
        limits = limits or ZipLimits()
        self._path = path
        try:
            _check_directory_size(path, limits)
            self._archive = zipfile.ZipFile(path)
        except READ_ERRORS as error:
            raise DataError("unreadable_file", f"{path.name}: not a readable zip: {error}") from error
        try:
            self._entries = _checked_entries(self._archive.infolist(), path, limits)
        except DataError:
            self._archive.close()
            raise

    @property
    def path(self) -> Path:
        return self._path

    def jsonl_names(self) -> list[str]:
        names = [name for name in self._entries if name.endswith(".jsonl") and not _is_clutter(name)]
        depth = min((name.count("/") for name in names), default=0)
        return sorted(name for name in names if name.count("/") == depth)

    def lines(self, name: str) -> Iterator[bytes]:
        with self._open(name) as handle:
            yield from read_lines(handle, name)

    def read(self, name: str, max_bytes: int) -> bytes:
        with self._open(name) as handle:
            return read_limited(handle, name, max_bytes)

    def size_bytes(self) -> int:
        return self._path.stat().st_size

    def _open(self, name: str) -> BinaryIO:
        entry = self._entries.get(safe_name(name))
        if entry is None:
            raise DataError("missing_image", f"no file {name[:200]!r} in {self._path.name}")
        try:
            return io.BufferedReader(self._archive.open(entry))  # pyright: ignore[reportArgumentType]
        except READ_ERRORS as error:
            raise DataError("missing_image", f"{name[:200]!r} cannot be read from the zip: {error}") from error


def _checked_entries(infos: list[zipfile.ZipInfo], path: Path, limits: ZipLimits) -> dict[str, zipfile.ZipInfo]:
    total = sum(info.file_size for info in infos)
    if len(infos) > limits.entries:
        raise _unsafe(path, f"{len(infos)} entries; expected at most {limits.entries}")
    if total > limits.uncompressed_bytes:
        raise _unsafe(path, f"{total} bytes when unpacked; expected at most {limits.uncompressed_bytes}")
    if total > limits.ratio_free_bytes and total > limits.ratio * path.stat().st_size:
        raise _unsafe(path, f"{total} bytes when unpacked, more than {limits.ratio:g} times its size")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = _checked_name(info, path)
        if name in entries:
            raise _unsafe(path, f"entry {name[:200]!r} is there twice")
        if not info.is_dir():
            entries[name] = info
    return entries


def _checked_name(info: zipfile.ZipInfo, path: Path) -> str:
    # zipfile cuts a name at its first NUL byte and may turn separators; what the archive says is `orig_filename`
    try:
        name = safe_name(info.orig_filename)
    except DataError as error:
        raise _unsafe(path, f"entry {error.message}") from error
    if stat.S_ISLNK(info.external_attr >> 16):
        raise _unsafe(path, f"entry {name[:200]!r} is a link; expected files only")
    if info.flag_bits & 0x1:
        raise _unsafe(path, f"entry {name[:200]!r} is encrypted; expected no password")
    return name


def _check_directory_size(path: Path, limits: ZipLimits) -> None:
    """Refuse a huge table of contents before `zipfile` turns each of its entries into an object."""
    with path.open("rb") as handle:
        size = handle.seek(0, io.SEEK_END)
        handle.seek(max(0, size - 2**16 - 22 - 20 - 56))
        tail = handle.read()
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or end + 22 > len(tail):
        raise zipfile.BadZipFile("it has no end-of-directory record; is the upload complete?")
    (directory_bytes,) = struct.unpack_from("<L", tail, end + 12)
    end64 = end - 20 - 56
    if end64 >= 0 and tail[end64 : end64 + 4] == b"PK\x06\x06":
        (directory_bytes,) = struct.unpack_from("<Q", tail, end64 + 40)
    if directory_bytes > limits.directory_bytes:
        raise _unsafe(
            path, f"a table of contents of {directory_bytes} bytes; expected at most {limits.directory_bytes}"
        )


def _is_clutter(name: str) -> bool:
    """What macOS adds to archives."""
    return name.startswith("__MACOSX/") or name.rsplit("/", 1)[-1].startswith("._")


def _unsafe(path: Path, message: str) -> DataError:
    return DataError("unsafe_archive", f"{path.name}: {message}")
