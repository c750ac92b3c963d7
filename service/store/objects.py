"""ObjectStore: files under keys, in a directory here or in an S3 bucket (`s3.py`); one contract, one test for both.

An object appears whole or not at all, and replaces the one under its key. The store keeps no metadata and takes no
locks: what belongs to whom, and which file is current, is the database's to say.
"""

import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from service.settings import Settings
from service.store.unavailable import ObjectsUnavailable, disk_errors

CHUNK_BYTES = 1024 * 1024
LONGEST_KEY_BYTES = 1024  # S3's limit
_PARTIAL = ".partial-"
ABANDONED_SECONDS = 24 * 3600  # no copy on one machine takes a day


class ObjectNotFound(Exception):  # noqa: N818 - a state of affairs, read as one
    """No object has this key."""

    def __init__(self, key: str) -> None:
        super().__init__(f"no object has the key {key!r}")
        self.key = key


@dataclass(frozen=True)
class ObjectInfo:
    key: str
    size_bytes: int
    modified_at: datetime


class ObjectStore(Protocol):
    """Keys are relative paths with forward slashes; `ValueError` for any other, `ObjectNotFound` for one without object.

    `ObjectsUnavailable` when the store cannot do it, with the reason; an `OSError` is of a file on the caller's side.
    """

    def put_file(self, key: str, path: Path) -> None: ...

    def put_bytes(self, key: str, content: bytes) -> None: ...

    def get_file(self, key: str, path: Path) -> None:
        """Download to `path`, whose folders are made; the file appears there whole or not at all."""
        ...

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to and without `end`, in chunks; the object is looked up before this returns."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every object whose key begins with `prefix`, in the order of their keys."""
        ...

    def head(self, key: str) -> ObjectInfo: ...

    def delete(self, key: str) -> None:
        """Remove the object; none under this key is no error."""
        ...

    def url(self, key: str, expires_seconds: int, filename: str) -> str | None:
        """An address that downloads the object as `filename` until it expires, or None: then the API serves the bytes."""
        ...


def open_objects(settings: Settings) -> ObjectStore:
    """The object store that the settings name."""
    match settings.object_store:
        case "directory":
            return DirectoryStore(settings.objects_dir)
        case "s3":
            from service.store.s3 import S3Store  # boto3 takes a third of a second to import

            return S3Store(settings)


def check_key(key: str) -> str:
    """The key, or `ValueError`: it could leave its folder, or mean another file on another system."""
    parts = key.split("/")
    if not key or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"object key {key!r} must be a relative path without empty parts, '.' and '..'")
    if any(character == "\\" or ord(character) < 32 or ord(character) == 127 for character in key):
        raise ValueError(f"object key {key!r} must not contain backslashes or control characters")
    if len(key.encode()) > LONGEST_KEY_BYTES or any(len(part.encode()) > 255 for part in parts):
        raise ValueError(f"object key {key[:80]!r}... is too long: {LONGEST_KEY_BYTES} bytes, 255 in one part")
    return key


def remove_abandoned(folder: Path, pattern: str, older_than_seconds: float) -> None:
    """Delete what processes left that were killed while they wrote; younger files may still be on their way."""
    for path in folder.glob(pattern):
        with suppress(FileNotFoundError):  # another process does the same just now
            if path.stat().st_mtime < time.time() - older_than_seconds:
                path.unlink()


class DirectoryStore:
    """Objects as files in one folder. A file is written under a temporary name, flushed to disk, then renamed."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._objects = root.resolve() / "data"
        self._temporary = root.resolve() / "tmp"  # beside the objects: a rename must stay on one file system
        self._objects.mkdir(exist_ok=True)
        self._temporary.mkdir(exist_ok=True)
        remove_abandoned(self._temporary, f"{_PARTIAL}*", ABANDONED_SECONDS)

    def put_file(self, key: str, path: Path) -> None:
        with path.open("rb") as source:
            self._put(key, source)

    def put_bytes(self, key: str, content: bytes) -> None:
        self._put(key, io.BytesIO(content))

    def get_file(self, key: str, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open(key) as source:
            _write_whole(source, path.parent, path)  # the caller's disk: its errors come as they are

    def open_range(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        return _chunks(key, self._open(key), start, end)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        folder = self._objects / _folder_of(prefix)
        if not self._objects.is_dir():
            raise self._missing(prefix)
        if folder.resolve() != folder:
            return iter(())
        files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        found = (_info(path.relative_to(self._objects).as_posix(), path) for path in files)
        with disk_errors(prefix):
            wanted = [info for info in found if info.key.startswith(prefix)]
        return iter(sorted(wanted, key=lambda info: info.key.encode()))

    def head(self, key: str) -> ObjectInfo:
        with disk_errors(key):
            return _info(key, self._existing(key))

    def delete(self, key: str) -> None:
        path = self._path(key)
        with disk_errors(key):
            path.unlink(missing_ok=True)
        for folder in path.parents[: len(key.split("/")) - 1]:  # S3 has no empty folders, so neither have we
            try:
                folder.rmdir()
            except OSError:
                return

    def url(self, key: str, expires_seconds: int, filename: str) -> str | None:
        check_key(key)
        return None

    def _put(self, key: str, source: BinaryIO) -> None:
        if not self._temporary.is_dir():
            raise self._missing(key)
        with disk_errors(key):
            _write_whole(source, self._temporary, self._path(key))

    def _path(self, key: str) -> Path:
        """The file of a key; refuses one that a symbolic link would lead elsewhere."""
        path = self._objects / check_key(key)
        if path.parent.resolve() != path.parent:
            raise ValueError(f"object key {key!r} leads through a symbolic link")
        return path

    def _existing(self, key: str) -> Path:
        path = self._path(key)
        if path.is_symlink() or not path.is_file():
            raise ObjectNotFound(key) if self._objects.is_dir() else self._missing(key)
        return path

    def _open(self, key: str) -> BinaryIO:
        try:
            with disk_errors(key):
                return self._existing(key).open("rb")
        except FileNotFoundError as error:  # deleted just now
            raise ObjectNotFound(key) from error

    def _missing(self, key: str) -> ObjectsUnavailable:
        """The store's own folder is gone: a volume that is not mounted, as a rule."""
        return ObjectsUnavailable(f"{key}: the folder {self._objects.parent} is gone", "missing")


def _write_whole(source: BinaryIO, temporary_folder: Path, target: Path) -> None:
    """Copy to a temporary name, flush to disk, rename: `target` is the old file or the new one, never a part of it."""
    descriptor, name = tempfile.mkstemp(dir=temporary_folder, prefix=_PARTIAL)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            shutil.copyfileobj(source, file, CHUNK_BYTES)
            file.flush()
            os.fsync(file.fileno())
        _rename(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _rename(temporary: Path, target: Path) -> None:
    _move(temporary, target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the name is on disk too
    finally:
        os.close(folder)


def _move(temporary: Path, target: Path, tries: int = 100) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(target)
    except (FileNotFoundError, FileExistsError):  # a delete beside us took the folder away, empty at that moment
        if tries == 0:
            raise
        _move(temporary, target, tries - 1)


def _chunks(key: str, file: BinaryIO, start: int, end: int | None) -> Iterator[bytes]:
    with file, disk_errors(key):
        file.seek(start)
        left = None if end is None else max(0, end - start)
        while chunk := file.read(CHUNK_BYTES if left is None else min(left, CHUNK_BYTES)):
            left = None if left is None else left - len(chunk)
            yield chunk


def _folder_of(prefix: str) -> str:
    """The folder that holds every key with this prefix."""
    folder = prefix.rpartition("/")[0]
    return check_key(folder) if folder else ""


def _info(key: str, path: Path) -> ObjectInfo:
    status = path.stat()
    return ObjectInfo(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))
