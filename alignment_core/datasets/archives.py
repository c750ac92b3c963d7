"""Zip archives, read in place. Only a file that is read by offset and was compressed is unpacked, to a file without a name.

An archive with links, absolute or `..` names, encrypted or doubled entries, or more inside than its limits allow is
refused as a whole, before anything in it is read. What an entry announces as its size is what can be read of it.
"""

import io
import os
import shutil
import stat
import struct
import tempfile
import unicodedata
import zipfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from alignment_core.datasets.by_offset import Stretch
from alignment_core.datasets.files import (
    READ_ERRORS,
    Buffer,
    is_clutter,
    map_file,
    read_chunks,
    read_limited,
    read_lines,
    safe_name,
)
from alignment_core.datasets.in_parts import FileInParts
from alignment_core.errors import DataError

UTF8_NAME = 0x800  # flag of an entry
METHODS_READ = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA})
OTHER_METHODS = {1: "Shrink", 6: "Implode", 9: "Deflate64", 93: "Zstandard", 95: "XZ", 98: "PPMd", 99: "AES encryption"}
LOCAL_HEADER_BYTES = 30  # of a zip's entry, before its name
MAX_SHARD_RATIO = 4  # of a compressed file that must be unpacked; images hardly compress
SMALL_SHARD_BYTES = 8 * 2**20


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

    def __init__(self, path: Path | FileInParts, limits: ZipLimits | None = None) -> None:
        limits = limits or ZipLimits()
        self._parts = path if isinstance(path, FileInParts) else None
        self._path = path.path if isinstance(path, FileInParts) else path
        self._whole: memoryview | None = None
        self._unpacked_bytes = 0
        try:
            with self._opened() as handle:
                _check_directory_size(handle, self._path, limits)
            self._archive = zipfile.ZipFile(self._path if self._parts is None else self._opened())
        except READ_ERRORS as error:
            raise DataError("unreadable_file", f"{self._path.name}: not a readable zip: {error}") from error
        try:
            self._entries = _checked_entries(self._archive.infolist(), self._path, self.size_bytes(), limits)
        except DataError:
            self._archive.close()
            raise

    @property
    def path(self) -> Path:
        return self._path

    def names(self, suffixes: Collection[str]) -> list[str]:
        return sorted(name for name in self._entries if name.lower().endswith(tuple(suffixes)) and not is_clutter(name))

    def has(self, name: str) -> bool:
        try:
            return self._find(name) is not None
        except DataError:
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

    def _opened(self) -> BinaryIO:
        return self._path.open("rb") if self._parts is None else self._parts.content.open()

    def mapped(self, name: str) -> Buffer | Stretch:
        with self._open(name) as handle:  # finds damaged headers, and entries that are not there
            entry = self._find(name)
            assert entry is not None, "it was opened just now"
            if entry.compress_type == zipfile.ZIP_STORED:
                return self._stored(entry)
            if entry.file_size > MAX_SHARD_RATIO * max(entry.compress_size, SMALL_SHARD_BYTES):
                raise _unsafe(self._path, f"{name[:200]!r} grows more than {MAX_SHARD_RATIO} times when it is unpacked")
            self._refuse_over_limit(entry, name)
            return _unpacked(handle, name, self._path)

    def _refuse_over_limit(self, entry: zipfile.ZipInfo, name: str) -> None:
        """Where no more than a part of the archive may lie on the disk, what is unpacked may not take more either."""
        self._unpacked_bytes += entry.file_size
        if self._parts is not None and self._unpacked_bytes > self._parts.note.disk_bytes:
            raise DataError(
                "unreadable_file",
                f"{self._path.name}: {name[:200]!r} is compressed and too large to be unpacked here",
                hint="Make the zip without compression, as `attune dataset upload` does with a folder.",
            )

    def _stored(self, entry: zipfile.ZipInfo) -> Buffer | Stretch:
        if self._parts is not None:
            return self._stored_in_parts(self._parts.content, entry)
        if self._whole is None:
            with self._path.open("rb") as archive:
                self._whole = memoryview(map_file(archive))
        name_bytes, extra_bytes = struct.unpack_from("<HH", self._whole, entry.header_offset + 26)
        start = entry.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes
        return self._whole[start : start + entry.file_size]

    def _stored_in_parts(self, content: Stretch, entry: zipfile.ZipInfo) -> Stretch:
        with content.part(entry.header_offset, LOCAL_HEADER_BYTES).open() as header:
            name_bytes, extra_bytes = struct.unpack_from("<HH", header.read(), 26)
        start = entry.header_offset + LOCAL_HEADER_BYTES + name_bytes + extra_bytes
        return content.part(start, entry.file_size)

    def size_bytes(self) -> int:
        return self._path.stat().st_size if self._parts is None else self._parts.note.size_bytes

    def _find(self, name: str) -> zipfile.ZipInfo | None:
        safe = safe_name(name)
        if safe in self._entries or safe.isascii():
            return self._entries.get(safe)
        return self._composed.get(unicodedata.normalize("NFC", safe))

    @cached_property
    def _composed(self) -> dict[str, zipfile.ZipInfo]:
        """The entries whose names have more than ASCII, by one of the forms of Unicode that names come in."""
        others = (name for name in self._entries if not name.isascii())
        return {unicodedata.normalize("NFC", name): self._entries[name] for name in others}

    def _open(self, name: str) -> BinaryIO:
        entry = self._find(name)
        if entry is None:
            raise DataError("missing_image", f"no file {name[:200]!r} in {self._path.name}")
        try:
            return io.BufferedReader(self._archive.open(entry))  # pyright: ignore[reportArgumentType]
        except READ_ERRORS as error:
            raise DataError("missing_image", f"{name[:200]!r} cannot be read from the zip: {error}") from error


def _checked_entries(
    infos: list[zipfile.ZipInfo], path: Path, size_bytes: int, limits: ZipLimits
) -> dict[str, zipfile.ZipInfo]:
    total = sum(info.file_size for info in infos)
    if len(infos) > limits.entries:
        raise _unsafe(path, f"{len(infos)} entries; expected at most {limits.entries}")
    if total > limits.uncompressed_bytes:
        raise _unsafe(path, f"{total} bytes when unpacked; expected at most {limits.uncompressed_bytes}")
    if total > limits.ratio_free_bytes and total > limits.ratio * size_bytes:
        raise _unsafe(path, f"{total} bytes when unpacked, more than {limits.ratio:g} times its size")
    entries: dict[str, zipfile.ZipInfo] = {}
    for info in infos:
        name = _checked_name(info, path)
        if name in entries:
            raise _unsafe(path, f"entry {name[:200]!r} is there twice")
        if not info.is_dir():
            _refuse_method(info, name, path)
            entries[name] = info
    return entries


def _said_name(info: zipfile.ZipInfo) -> str:
    """The entry's name. macOS writes UTF-8 without saying so, which `zipfile` reads as the code page of the first PCs."""
    if info.flag_bits & UTF8_NAME or info.orig_filename.isascii():
        return info.orig_filename
    try:
        return info.orig_filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.orig_filename


def _refuse_method(info: zipfile.ZipInfo, name: str, path: Path) -> None:
    if info.compress_type in METHODS_READ:
        return
    method = OTHER_METHODS.get(info.compress_type, f"method {info.compress_type}")
    raise DataError(
        "unreadable_file",
        f"{path.name}: {name[:200]!r} is compressed with {method}, which is not read here; make the zip anew with the method "
        "Deflate or Store (Windows Explorer takes Deflate64 for files over 2 GB: use 7-Zip, or Python's shutil.make_archive)",
    )


def _checked_name(info: zipfile.ZipInfo, path: Path) -> str:
    # zipfile cuts a name at its first NUL byte and may turn separators; what the archive says is `orig_filename`
    try:
        name = safe_name(_said_name(info))
    except DataError as error:
        raise _unsafe(path, f"entry {error.message}") from error
    if stat.S_ISLNK(info.external_attr >> 16):
        raise _unsafe(path, f"entry {name[:200]!r} is a link; expected files only")
    if info.flag_bits & 0x1:
        raise _unsafe(path, f"entry {name[:200]!r} is encrypted; expected no password")
    return name


def _check_directory_size(handle: BinaryIO, path: Path, limits: ZipLimits) -> None:
    """Refuse a huge table of contents before `zipfile` turns each of its entries into an object."""
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


def _unpacked(handle: BinaryIO, name: str, archive: Path) -> Buffer:
    """The content of a compressed entry in a file without a name, which is gone with whoever reads it."""
    folder = archive.parent if os.access(archive.parent, os.W_OK) else None  # the temporary folder is often memory
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            shutil.copyfileobj(handle, file, 2**20)
        except READ_ERRORS as error:
            raise DataError("unreadable_file", f"{name} cannot be unpacked: {error}") from error
        file.flush()
        return map_file(file)  # pyright: ignore[reportArgumentType]


def _unsafe(path: Path, message: str) -> DataError:
    return DataError("unsafe_archive", f"{path.name}: {message}")
