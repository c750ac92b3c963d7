"""Receiving a file as `multipart/form-data`: to disk while it arrives, hashed on the way, never whole in memory.

FastAPI's own form parsing spools to the system's temporary folder, often memory, and would have to be copied from there
to be hashed and stored. Here the one copy lies beside the other data until the object store has it.
"""

import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Generator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, BinaryIO

import structlog
from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.api.bodies import arriving
from service.errors import ApiError, FieldProblem, invalid_request, unavailable
from service.settings import Settings
from service.store.unavailable import ERRNO_REASONS

log = structlog.get_logger()

BUFFER_BYTES = 1 << 20
LONGEST_FIELD_BYTES = 4096
LONGEST_HEADERS_BYTES = 16_384
LONGEST_FILENAME = 255
UPLOAD_PREFIX = "upload-"


@dataclass(frozen=True)
class Upload:
    """A file that has arrived completely. `path` is gone when the context of `receive` ends."""

    path: Path
    filename: str
    size_bytes: int
    sha256: str
    fields: dict[str, str]


@dataclass
class _Part:
    """The part of the form that is being read."""

    headers: dict[str, str] = field(default_factory=dict)
    header_name: bytearray = field(default_factory=bytearray)
    header_value: bytearray = field(default_factory=bytearray)
    name: str = ""
    filename: str | None = None
    text: bytearray = field(default_factory=bytearray)


class _Form:
    """What the parser calls back: one file goes to `target`, short text fields to `fields`."""

    def __init__(self, target: BinaryIO, text_fields: frozenset[str]) -> None:
        self._target = target
        self._text_fields = text_fields
        self._digest = hashlib.sha256()
        self._part = _Part()
        self._pending = bytearray()
        self.filename: str | None = None
        self.size_bytes = 0
        self.fields: dict[str, str] = {}
        self.is_complete = False

    def callbacks(self) -> dict[str, object]:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._extend(self._part.header_name, data[start:end]),
            "on_header_value": lambda data, start, end: self._extend(self._part.header_value, data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    @property
    def has_enough(self) -> bool:
        return len(self._pending) >= BUFFER_BYTES

    def flush(self) -> None:
        """Write and hash what has gathered; call it outside of the event loop."""
        self._target.write(self._pending)
        self._digest.update(self._pending)
        self._pending.clear()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()

    def _begin(self) -> None:
        self._part = _Part()

    def _extend(self, text: bytearray, data: bytes) -> None:
        text += data
        if len(text) > LONGEST_HEADERS_BYTES:
            raise _refuse("", "the headers of a part are too long")

    def _end_header(self) -> None:
        name = self._part.header_name.decode("latin-1").lower()
        self._part.headers[name] = self._part.header_value.decode("latin-1")
        self._part.header_name.clear()
        self._part.header_value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._part.headers.get("content-disposition", ""))
        self._part.name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        if self._part.name == "file":
            if self.filename is not None:
                raise _refuse("file", "send one file; this form has several")
            self._part.filename = self.filename = plain_name((filename or b"").decode("utf-8", "replace"))
        elif self._part.name not in self._text_fields:
            known = ", ".join(sorted({"file", *self._text_fields}))
            raise _refuse(self._part.name, f"unknown field; expected {known}")

    def _data(self, data: bytes, start: int, end: int) -> None:
        if self._part.filename is not None:
            self._pending += data[start:end]
            self.size_bytes += end - start
        else:
            self._part.text += data[start:end]
            if len(self._part.text) > LONGEST_FIELD_BYTES:
                raise _refuse(self._part.name, f"at most {LONGEST_FIELD_BYTES} bytes")

    def _end(self) -> None:
        if self._part.filename is None:
            self.fields[self._part.name] = self._part.text.decode("utf-8", "replace")

    def _finish(self) -> None:
        self.is_complete = True


@asynccontextmanager
async def receive(
    request: Request, settings: Settings, max_bytes: int, text_fields: frozenset[str]
) -> AsyncIterator[Upload]:
    """The one file of a form, in the field `file`, with its text fields; 408, 413 and 422 name what was wrong."""
    folder = uploads_folder(settings)
    parser_boundary = _boundary(request.headers.get("content-type", ""))
    with told_disk_errors():
        await run_in_threadpool(folder.mkdir, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder, prefix=UPLOAD_PREFIX)
    path = Path(name)
    try:
        with told_disk_errors(), os.fdopen(descriptor, "wb") as target:
            form = _Form(target, text_fields)
            parser = MultipartParser(parser_boundary, form.callbacks())  # pyright: ignore[reportArgumentType]
            await _read(arriving(request, settings.upload_idle_seconds), parser, form, max_bytes)
        if form.filename is None:
            raise _refuse("file", "send the file as the form field `file`")
        yield Upload(path, form.filename, form.size_bytes, form.hexdigest(), form.fields)
    finally:
        path.unlink(missing_ok=True)


async def _read(body: AsyncIterator[bytes], parser: MultipartParser, form: _Form, max_bytes: int) -> None:
    try:
        async for chunk in body:
            parser.write(chunk)
            if form.size_bytes > max_bytes:
                raise ApiError(413, "content_too_large", f"the file is larger than the {max_bytes} bytes accepted here")
            if form.has_enough:
                await run_in_threadpool(form.flush)
        parser.finalize()
    except MultipartParseError as error:
        raise _refuse("", f"the body is no well-formed multipart/form-data: {error}") from error
    if not form.is_complete:
        raise _refuse("", "the multipart/form-data body ends before its last boundary")
    await run_in_threadpool(form.flush)


def uploads_folder(settings: Settings) -> Path:
    """Where files lie until the object store has them."""
    return settings.data_dir / "uploads"


@contextmanager
def told_disk_errors() -> Generator[None]:
    """503 or 507 with the reason when this machine's own disk does not take what arrives."""
    try:
        yield
    except OSError as error:
        reason = ERRNO_REASONS.get(error.errno or 0)
        if reason is None:
            raise
        log.error("upload_folder_unavailable", reason=reason, error=repr(error))
        raise unavailable("upload folder", reason) from error


@contextmanager
def on_disk(settings: Settings) -> Generator[IO[bytes]]:
    """A new file beside others that arrive, gone when the context ends; flush it before it is read by its name."""
    folder = uploads_folder(settings)
    with told_disk_errors():
        folder.mkdir(parents=True, exist_ok=True)
        file = tempfile.NamedTemporaryFile(dir=folder, prefix=UPLOAD_PREFIX)  # noqa: SIM115 - errors of the body are others'
    try:
        yield file
    finally:
        with suppress(OSError):  # of what a full disk did not take, which was told when it was written
            file.close()


def plain_name(filename: str) -> str:
    """The last part of a client's file name, without what could be a path, a control character or endless."""
    last = filename.replace("\\", "/").rpartition("/")[2]
    kept = "".join(char for char in last if char.isprintable()).strip()
    return kept[-LONGEST_FILENAME:] if kept.strip(".") else "unnamed"


def _boundary(content_type: str) -> bytes:
    media_type, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if media_type != b"multipart/form-data" or not 1 <= len(boundary) <= 200:
        message = "send multipart/form-data with a boundary and the file in the field `file`"
        raise invalid_request([FieldProblem(pointer="header:Content-Type", code="not_multipart", message=message)])
    return boundary


def _refuse(name: str, message: str) -> ApiError:
    pointer = f"/{name}" if name else ""
    return invalid_request([FieldProblem(pointer=pointer, code="invalid_form", message=message)])
