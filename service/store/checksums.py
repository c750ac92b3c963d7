"""CRC-32 of stored files, which archives have in their headers. Workers record it; an older file's is computed once."""

import zlib
from collections.abc import Iterator, Sequence

import sqlalchemy as sa

from service.store.database import Store
from service.store.models import CheckpointFile
from service.store.objects import ObjectStore
from service.store.records.base import StoredFile


def with_checksums(
    store: Store, objects: ObjectStore, checkpoint_id: str, files: Sequence[StoredFile]
) -> list[StoredFile]:
    """The checkpoint's files with their CRC-32; those that had none are read, and keep it from then on."""
    return [file if file.crc32 is not None else _computed(store, objects, checkpoint_id, file) for file in files]


def crc32_of(chunks: Iterator[bytes]) -> int:
    found = 0
    for chunk in chunks:
        found = zlib.crc32(chunk, found)
    return found


def _computed(store: Store, objects: ObjectStore, checkpoint_id: str, file: StoredFile) -> StoredFile:
    found = crc32_of(objects.open_range(file.object_key))
    same = (CheckpointFile.checkpoint_id == checkpoint_id, CheckpointFile.path == file.path)
    with store.write() as session:  # not of a file that a later attempt put in its place meanwhile
        session.execute(
            sa.update(CheckpointFile).where(*same, CheckpointFile.sha256 == file.sha256).values(crc32=found)
        )
    return file.model_copy(update={"crc32": found})
