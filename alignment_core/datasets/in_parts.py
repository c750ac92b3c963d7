"""A file of an object store, read by ranges: no more of it lies on this machine than is allowed, however large it is.

In place of the file there is a folder with a note on it and the SHA-256 of each of its blocks, so that every byte is verified before
it is used, as in a file that was fetched whole. Blocks that were read stay, the least recently used go first. Who reads on gets
several at once, since each question costs a way to the store.
"""

import hashlib
import threading
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from alignment_core.datasets.asking import Asking
from alignment_core.datasets.by_offset import Stretch
from alignment_core.datasets.shelf import Disk
from alignment_core.disk_errors import disk_error_of
from alignment_core.errors import AlignmentError
from alignment_core.spec.places import PARTS_HASHES, PARTS_NOTE, PartsNote

BLOCKS_AT_ONCE = 16
TRIES = 3  # to get blocks as they were stored
DIGEST_BYTES = 32


class Ranges(Protocol):
    """Where blocks come from."""

    def get(self, start: int, end: int, path: Path) -> None:
        """Write the bytes from `start` up to and without `end` to `path`."""
        ...


class AskedRanges:
    """`Ranges` that another process is asked for; the answers are written beside the note."""

    def __init__(self, exchange: Path) -> None:
        self._asking = Asking(exchange)

    def get(self, start: int, end: int, path: Path) -> None:
        self._asking.ask({"verb": "range", "start": start, "end": end, "place": path.name})


def is_in_parts(path: Path) -> bool:
    """Whether this is a folder that stands for a file."""
    return (path / PARTS_NOTE).is_file()


@lru_cache(maxsize=8)
def file_in_parts(path: Path) -> "FileInParts":
    """The file that the folder stands for. A run opens its data several times, and each time finds what is here already."""
    note = PartsNote.model_validate_json((path / PARTS_NOTE).read_bytes())
    return FileInParts(path, note, AskedRanges(Path(note.exchange)))


class FileInParts:
    """Reads the file by offset, from any thread; `path` is what messages name."""

    def __init__(self, path: Path, note: PartsNote, ranges: Ranges) -> None:
        self.path, self.note = path, note
        self._ranges = ranges
        self._hashes = (path / PARTS_HASHES).read_bytes()
        self._at_once = max(1, min(BLOCKS_AT_ONCE, note.disk_bytes // (4 * note.block_bytes)))
        coming = 2 * self._at_once * note.block_bytes  # what was asked for lies here twice for a moment
        self._disk = Disk(max(note.block_bytes, note.disk_bytes - coming))
        self._blocks = path / f"blocks-{uuid.uuid4().hex}"  # of this process: each counts for itself
        self._blocks.mkdir()
        self._lock = threading.Lock()
        self._last = -1

    @property
    def content(self) -> Stretch:
        return Stretch(self.note.size_bytes, self._read)

    def _read(self, start: int, size: int) -> bytes:
        number, offset = divmod(start, self.note.block_bytes)
        path = self._blocks / str(number)
        with self._lock:
            if not self._disk.hold(path):
                self._fetch(number)
            self._last = number
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(size)

    def _fetch(self, number: int) -> None:
        """The block, and those after it where somebody reads on."""
        end = number + (self._at_once if number == self._last + 1 else 1)
        for index, block in reversed(list(enumerate(self._verified(number, end), number))):
            path = self._blocks / str(index)
            try:
                path.write_bytes(block)
            except OSError as error:
                raise (disk_error_of(error) or error) from error
            self._disk.hold(path)

    def _verified(self, number: int, end: int) -> list[bytes]:
        wanted = self._hashes[number * DIGEST_BYTES : end * DIGEST_BYTES]
        for _ in range(TRIES):
            blocks = self._got(number, end)
            if b"".join(hashlib.sha256(block).digest() for block in blocks) == wanted:
                return blocks
        raise AlignmentError(
            "object_altered",
            f"{self.path.name}: the object store returned other bytes than were stored (sha256 differs)",
            category="system",
            retryable=True,
        )

    def _got(self, number: int, end: int) -> list[bytes]:
        size, temporary = self.note.block_bytes, self.path / f"{uuid.uuid4().hex}.tmp"
        try:
            self._ranges.get(number * size, min(end * size, self.note.size_bytes), temporary)
            data = temporary.read_bytes()
        finally:
            temporary.unlink(missing_ok=True)
        return [data[start : start + size] for start in range(0, len(data), size)]
