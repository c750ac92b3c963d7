"""The bytes of an upload as they arrive: kept piece by piece in the object store, and put together when all are there.

A piece is kept when it is full, when the request ends, and when its connection breaks or its sender falls silent, so that what is sent
again is little. Until then it lies on this machine's disk, so that senders who are slow hold no memory to speak of, however many they are.
"""

import hashlib
import secrets
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from service.api.bodies import SenderStalled, arriving
from service.api.checked_uploads import BEGINNING_BYTES
from service.api.context import Parts
from service.api.datasets import refuse_unknown_format
from service.api.uploads import Upload, on_disk, told_disk_errors
from service.api.weights import refuse_other_files
from service.errors import ApiError, FieldProblem, invalid_request, not_found
from service.settings import Settings
from service.store import keys, uploads
from service.store.records.uploads import UploadRecord
from service.store.unavailable import ObjectsUnavailable

PIECE_BYTES = 8 << 20
HELD_BYTES = 256 << 10  # of a body in memory
MOST_SMALL_PIECES = 10_000  # beside the full ones: each costs a row, an object and a look at it in the end


def kept_for(settings: Settings) -> timedelta:
    return timedelta(hours=settings.unfinished_upload_hours)


@dataclass
class _Piece:
    """What came of a body and is not stored yet: a little of it in memory, the rest in `file`, on this machine's disk."""

    file: IO[bytes]
    held: bytearray = field(default_factory=bytearray)
    size_bytes: int = 0

    def add(self, chunk: bytes) -> None:
        self.held += chunk
        self.size_bytes += len(chunk)

    def write(self) -> None:
        """To the disk; call it outside of the event loop."""
        with told_disk_errors():
            self.file.write(self.held)
        self.held.clear()

    def whole(self) -> tuple[Path, bytes]:
        """All of it as a file, and how it begins."""
        self.write()
        with told_disk_errors():
            self.file.flush()
            self.file.seek(0)
            return Path(self.file.name), self.file.read(BEGINNING_BYTES)

    def clear(self) -> None:
        with told_disk_errors():
            self.file.seek(0)
            self.file.truncate()
        self.size_bytes = 0


async def append(request: Request, parts: Parts, upload: UploadRecord) -> UploadRecord:
    """The upload with the body of the request at its end.

    413 for more than is missing; raises `OutOfPlaceError` where somebody else was faster, and `ClientDisconnect` and `SenderStalled`
    once what came is kept.
    """
    left = upload.size_bytes - upload.received_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > left:
        raise _too_long(left)
    received = 0
    with on_disk(parts.settings) as file:
        piece = _Piece(file)
        try:
            async for chunk in arriving(request, parts.settings.upload_idle_seconds):
                received += len(chunk)
                if received > left:
                    raise _too_long(left)
                piece.add(chunk)
                if piece.size_bytes >= PIECE_BYTES:
                    upload = await run_in_threadpool(_keep, parts, upload, piece)
                elif len(piece.held) >= HELD_BYTES:
                    await run_in_threadpool(piece.write)
        except (ClientDisconnect, SenderStalled):
            if piece.size_bytes:
                await run_in_threadpool(_keep, parts, upload, piece)
            raise
        return await run_in_threadpool(_keep, parts, upload, piece) if piece.size_bytes else upload


def _keep(parts: Parts, upload: UploadRecord, piece: _Piece) -> UploadRecord:
    start, (path, beginning) = upload.received_bytes, piece.whole()
    if start == 0 and len(beginning) == BEGINNING_BYTES:
        _refuse_other_kinds(upload, beginning)
    if upload.num_pieces >= MOST_SMALL_PIECES + upload.size_bytes // PIECE_BYTES:
        raise ApiError(409, "too_many_pieces", f"upload {upload.id!r} came in too many small pieces; begin another")
    key = keys.upload_piece_key(upload.project_id, upload.id, start, secrets.token_hex(8))
    parts.objects.put_file(key, path)
    try:
        kept = uploads.add_piece(
            parts.store, upload, start=start, size_bytes=piece.size_bytes, object_key=key, keep=kept_for(parts.settings)
        )
    except uploads.OutOfPlaceError:
        _throw_away(parts, key)
        raise
    if kept is None:
        _throw_away(parts, key)
        raise not_found("upload", upload.id)
    piece.clear()
    return kept


def _throw_away(parts: Parts, key: str) -> None:
    """A piece that does not count; what a store that is away keeps of it goes with the upload."""
    with suppress(ObjectsUnavailable):
        parts.objects.delete(key)


def _refuse_other_kinds(upload: UploadRecord, beginning: bytes) -> None:
    """422 before the rest is sent; what cannot be told yet shows when all is there."""
    match upload.purpose:
        case "dataset":
            refuse_unknown_format(beginning, upload.filename)
        case "weights":
            refuse_other_files(beginning, upload.filename)
        case "prompt_set":
            return


def _too_long(left: int) -> ApiError:
    return ApiError(413, "content_too_large", f"the body is longer than the {left} bytes that are missing of the file")


@contextmanager
def whole(parts: Parts, upload: UploadRecord) -> Generator[Upload]:
    """The file, put together on this machine's disk while the context lasts; 422 where it is not what was announced."""
    with on_disk(parts.settings) as file:
        digest, size_bytes = hashlib.sha256(), 0
        for key in uploads.pieces(parts.store, upload.id):
            for chunk in parts.objects.open_range(key):
                with told_disk_errors():
                    file.write(chunk)
                digest.update(chunk)
                size_bytes += len(chunk)
        with told_disk_errors():
            file.flush()
        assert size_bytes == upload.size_bytes, "the pieces that were noted are the file"
        if upload.sha256 not in (None, digest.hexdigest()):
            message = f"what arrived has the SHA-256 {digest.hexdigest()}; upload the file anew"
            raise invalid_request([FieldProblem(pointer="/sha256", code="sha256_differs", message=message)])
        yield Upload(Path(file.name), upload.filename, size_bytes, digest.hexdigest(), {})
