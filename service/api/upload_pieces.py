"""The bytes of an upload as they arrive: kept piece by piece in the object store, and put together when all are there.

A piece is kept when it is full, when the request ends, and when its connection breaks, so that what is sent again is little. In
memory is one piece at a time, however long the body.
"""

import hashlib
import secrets
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from service.api.checked_uploads import BEGINNING_BYTES, uploads_folder
from service.api.context import Parts
from service.api.datasets import refuse_unknown_format
from service.api.uploads import UPLOAD_PREFIX, Upload, told_disk_errors
from service.api.weights import refuse_other_files
from service.errors import ApiError, FieldProblem, invalid_request, not_found
from service.settings import Settings
from service.store import keys, uploads
from service.store.records.uploads import UploadRecord

PIECE_BYTES = 8 << 20
MOST_SMALL_PIECES = 10_000  # beside the full ones: each costs a row, an object and a look at it in the end


def kept_for(settings: Settings) -> timedelta:
    return timedelta(hours=settings.unfinished_upload_hours)


async def append(request: Request, parts: Parts, upload: UploadRecord) -> UploadRecord:
    """The upload with the body of the request at its end.

    413 for more than is missing; raises `OutOfPlaceError` where somebody else was faster, and `ClientDisconnect` once what came is kept.
    """
    left = upload.size_bytes - upload.received_bytes
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > left:
        raise _too_long(left)
    piece, received = bytearray(), 0
    try:
        async for chunk in request.stream():
            received += len(chunk)
            if received > left:
                raise _too_long(left)
            piece += chunk
            while len(piece) >= PIECE_BYTES:
                upload = await run_in_threadpool(_keep, parts, upload, bytes(memoryview(piece)[:PIECE_BYTES]))
                del piece[:PIECE_BYTES]
    except ClientDisconnect:
        if piece:
            await run_in_threadpool(_keep, parts, upload, bytes(piece))
        raise
    return await run_in_threadpool(_keep, parts, upload, bytes(piece)) if piece else upload


def _keep(parts: Parts, upload: UploadRecord, piece: bytes) -> UploadRecord:
    start = upload.received_bytes
    if start == 0 and len(piece) >= BEGINNING_BYTES:
        _refuse_other_kinds(upload, piece[:BEGINNING_BYTES])
    if upload.num_pieces >= MOST_SMALL_PIECES + upload.size_bytes // PIECE_BYTES:
        raise ApiError(409, "too_many_pieces", f"upload {upload.id!r} came in too many small pieces; begin another")
    key = keys.upload_piece_key(upload.project_id, upload.id, start, secrets.token_hex(8))
    parts.objects.put_bytes(key, piece)
    kept = uploads.add_piece(
        parts.store, upload, start=start, size_bytes=len(piece), object_key=key, keep=kept_for(parts.settings)
    )
    if kept is None:
        raise not_found("upload", upload.id)
    return kept


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
    folder = uploads_folder(parts.settings)
    with told_disk_errors():
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.NamedTemporaryFile(dir=folder, prefix=UPLOAD_PREFIX)  # noqa: SIM115 - errors of the body are others'
    with file:
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
