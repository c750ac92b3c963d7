"""Scores on disk, by key: exact, bounded, and written by any number of processes at once.

A folder holds the scores of one reward. Every process appends whole records to a file of its own, so nobody waits for
anybody and nobody overwrites anything; it reads what the others had written when it began. A record has its own checksum:
what a killed process left half written, or a disk altered, is no record. A copy of a record says the same.
"""

import contextlib
import os
import struct
import time
import uuid
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

SUFFIX = ".scores"
RECORD = struct.Struct("<32sfI")  # key, score, checksum of both
CHECKED = struct.Struct("<32sf")
LARGEST_BYTES = 64 << 20  # of all rewards together: 1.6 million scores
MOST_FILES = 64  # of one reward, before they are put into one
IDLE_SECONDS = 3600.0  # after which a file is nobody's who still writes


class ScoreFiles:
    """The scores of one reward in `folder`, by keys of 32 bytes. Opening it makes room where all of its siblings are too large."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[bytes, float] = {}
        self._own: Path | None = None
        with contextlib.suppress(OSError):  # as everywhere here: without a disk scores are computed
            _make_room(folder.parent)
            _merge(folder)
            for path in _files_in(folder):
                self._known.update(_records_of(path))
                os.utime(path)  # what is used goes last

    def find(self, key: bytes) -> float | None:
        """The score under this key, in float32; None where nobody has kept one."""
        return self._known.get(key)

    def add(self, scores: Mapping[bytes, float]) -> None:
        """Keep scores that are float32 numbers."""
        self._known |= scores
        content = b"".join(_record(key, score) for key, score in scores.items())
        with contextlib.suppress(OSError):
            if self._own is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                self._own = self._folder / f"{uuid.uuid4().hex}{SUFFIX}"
            with self._own.open("ab") as file:
                file.write(content)


def _record(key: bytes, score: float) -> bytes:
    return RECORD.pack(key, score, zlib.crc32(CHECKED.pack(key, score)))


def _records_of(path: Path) -> Iterator[tuple[bytes, float]]:
    content = path.read_bytes()
    whole = len(content) - len(content) % RECORD.size
    for key, score, checksum in RECORD.iter_unpack(content[:whole]):
        if zlib.crc32(CHECKED.pack(key, score)) == checksum:
            yield key, score


def _files_in(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def _is_idle(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > IDLE_SECONDS


def _merge(folder: Path) -> None:
    """Put many small files into one; two processes that do so at once leave a copy, which says the same."""
    if len(_files_in(folder)) < MOST_FILES or len(files := [path for path in _files_in(folder) if _is_idle(path)]) < 2:
        return
    records = dict(record for path in files for record in _records_of(path))
    partial = folder / f"{uuid.uuid4().hex}.tmp"
    partial.write_bytes(b"".join(_record(key, score) for key, score in records.items()))
    partial.replace(partial.with_suffix(SUFFIX))
    for path in files:
        path.unlink(missing_ok=True)


def _make_room(root: Path) -> None:
    """Remove what was used least lately, of any reward, until there is room for what a run may add."""
    for leftover in root.glob("*/*.tmp"):
        if _is_idle(leftover):
            leftover.unlink(missing_ok=True)
    files = [(path.stat(), path) for path in root.glob(f"*/*{SUFFIX}")]
    size = sum(stat.st_size for stat, _ in files)
    for stat, path in sorted(files, key=lambda one: one[0].st_mtime):
        if size <= LARGEST_BYTES or not _is_idle(path):
            return
        path.unlink(missing_ok=True)
        size -= stat.st_size
