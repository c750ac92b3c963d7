"""A data set's file that is too large for this machine: its reader asks for ranges of it, as it does for shards (`worker/shards.py`).

Nothing is believed that was not verified: the file is read through once, for the SHA-256 of each of its blocks, and has to have the one
that its upload had. The list of blocks is kept in the object store beside the file, so other workers need not read it all.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import structlog

from alignment_core.errors import AlignmentError
from alignment_core.spec.places import PARTS_HASHES, PARTS_NOTE, PartsNote
from service.store import keys
from service.store.objects import ObjectNotFound
from service.store.records.uploads import DatasetRecord
from worker import inputs
from worker.parts import WorkerParts
from worker.patience import wait_out

DATA = "data"
BLOCK_BYTES = 2**20
MOST_BYTES = 32 * 2**20  # of one answer
DIGEST_BYTES = 32
COMING = re.compile(r"[0-9a-f]{32}\.tmp")

log = structlog.get_logger()


@dataclass(frozen=True)
class Ranges:
    """What a reader may ask of: one object. Answers are files in `folder`."""

    parts: WorkerParts
    key: str
    size_bytes: int
    folder: Path

    def write(self, question: Mapping[str, Any]) -> int:
        """Write what was asked for; returns its bytes."""
        start, end, place = int(question["start"]), int(question["end"]), question["place"]
        if not (0 <= start < end <= self.size_bytes and end - start <= MOST_BYTES):
            raise ValueError(f"{start} to {end} is no range of the data set")
        if not isinstance(place, str) or COMING.fullmatch(place) is None:
            raise ValueError(f"{place!r} is no name of an answer")
        wait_out(lambda: self._write(start, end, self.folder / place), self.parts.settings, self.parts.asked)
        return end - start

    def _write(self, start: int, end: int, target: Path) -> None:
        with target.open("xb") as file:  # no link leads elsewhere
            try:
                file.writelines(self.parts.objects.open_range(self.key, start, end))
            except BaseException:
                target.unlink()
                raise


def is_in_parts(parts: WorkerParts, dataset: DatasetRecord) -> bool:
    """Whether the file is not to lie on this machine whole."""
    limit = parts.settings.dataset_disk_bytes
    return dataset.kind == "data" and limit is not None and (dataset.size_bytes or 0) > limit


def data_of(parts: WorkerParts, dataset: DatasetRecord, folder: Path, exchange: Path, processes: int = 1) -> Path:
    """The data set's file, or the folder that stands for it, in `folder`, where it is to be read by ranges."""
    if not is_in_parts(parts, dataset):
        return inputs.fetch_dataset(parts, dataset)
    assert dataset.object_key is not None
    assert dataset.sha256 is not None
    assert dataset.size_bytes is not None
    assert parts.settings.dataset_disk_bytes is not None
    hashes = _hashes(parts, dataset, dataset.object_key, dataset.sha256)
    path = folder / f"{dataset.id}{PurePosixPath(dataset.object_key).suffix}"
    path.mkdir(parents=True)
    note = PartsNote(
        sha256=dataset.sha256,
        size_bytes=dataset.size_bytes,
        block_bytes=BLOCK_BYTES,
        disk_bytes=parts.settings.dataset_disk_bytes // processes,
        exchange=str(exchange.absolute()),
    )
    (path / PARTS_HASHES).write_bytes(hashes)
    (path / PARTS_NOTE).write_text(note.model_dump_json())
    return path


def ranges_of(parts: WorkerParts, dataset: DatasetRecord | None, folder: Path) -> Ranges | None:
    """What who reads in `folder` may ask for, as `data_of` has told it."""
    if dataset is None or dataset.object_key is None or dataset.size_bytes is None:
        return None
    path = folder / f"{dataset.id}{PurePosixPath(dataset.object_key).suffix}"
    return Ranges(parts, dataset.object_key, dataset.size_bytes, path) if path.is_dir() else None


def _hashes(parts: WorkerParts, dataset: DatasetRecord, object_key: str, sha256: str) -> bytes:
    """Of all blocks of the file; made once for all workers."""
    key = keys.blocks_key(dataset.project_id, dataset.id)
    num_blocks = -(-(dataset.size_bytes or 0) // BLOCK_BYTES)
    try:
        kept = wait_out(lambda: b"".join(parts.objects.open_range(key)), parts.settings, parts.asked)
    except ObjectNotFound:
        kept = b""
    found, seal = kept[:-DIGEST_BYTES], kept[-DIGEST_BYTES:]
    if len(found) == num_blocks * DIGEST_BYTES and hashlib.sha256(found).digest() == seal:
        return found
    try:
        found = wait_out(
            lambda: _read_through(parts.objects.open_range(object_key), sha256), parts.settings, parts.asked
        )
    except ObjectNotFound as error:
        message = f"{dataset.filename} is missing in the object store"
        raise AlignmentError("object_missing", message, category="system") from error
    wait_out(lambda: parts.objects.put_bytes(key, found + hashlib.sha256(found).digest()), parts.settings, parts.asked)
    log.info("blocks_of_data_set_listed", dataset_id=dataset.id, blocks=num_blocks)
    return found


def _read_through(chunks: Iterator[bytes], sha256: str) -> bytes:
    """The SHA-256 of each block of a file that has this one as a whole."""
    whole, hashes, block = hashlib.sha256(), bytearray(), bytearray()
    for chunk in chunks:
        whole.update(chunk)
        block += chunk
        while len(block) >= BLOCK_BYTES:
            hashes += hashlib.sha256(block[:BLOCK_BYTES]).digest()
            del block[:BLOCK_BYTES]
    if block:
        hashes += hashlib.sha256(block).digest()
    if whole.hexdigest() != sha256:
        message = "the data set: the object store returned other bytes than were stored (sha256 differs)"
        raise AlignmentError("object_altered", message, category="system", retryable=True)
    return bytes(hashes)
