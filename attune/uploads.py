"""Files to the server: a small one in one body; a large one in pieces that stay there, so that a broken connection costs a piece at most.

A call that ends, or whose process is killed, leaves an unfinished upload, which the next call for the same file goes on with.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from attune.connection import Connection, segment
from attune.errors import AttuneError
from attune.folder_zip import FolderZip, size_of_folder
from attune.requests import UPLOAD_TIMEOUT, as_form, key_headers, send_file

LARGE_BYTES = 32 << 20
PIECE_BYTES = 32 << 20
CHUNK_BYTES = 1 << 20
MOST_TRIES = 8  # in a row that bring nothing, about a minute in all
FIRST_WAIT_SECONDS = 0.25
PASSING = (408, 502, 503, 504)  # a proxy's or the server's own, who may answer in a moment
PASSING_CODES = ("unreachable", "upload_offset_differs", "idempotency_in_flight")

Purpose = Literal["dataset", "weights", "prompt_set"]
Progress = Callable[[int, int], None]
"""Told how many bytes have left, and of how many."""

PATHS: dict[Purpose, str] = {
    "dataset": "/v1/datasets",
    "weights": "/v1/weights",
    "prompt_set": "/v1/prompt_sets",
}


@dataclass(frozen=True)
class Source:
    """A file, or a folder as the zip of it, that can be read from any byte on."""

    path: Path

    @property
    def name(self) -> str:
        return f"{self.path.resolve().name}.zip" if self.path.is_dir() else self.path.name

    @property
    def is_large(self) -> bool:
        size = size_of_folder(self.path) if self.path.is_dir() else self.path.stat().st_size
        return size > LARGE_BYTES

    def chunks(self, start: int = 0) -> Iterator[bytes]:
        """The bytes from `start` on; two readings of what has not changed are the same."""
        if self.path.is_dir():
            return _without(start, iter(FolderZip(self.path)))
        return self._of_file(start)

    def _of_file(self, start: int) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(start)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def measured(self) -> tuple[int, str]:
        """Its size and SHA-256, by reading it once."""
        size, digest = 0, hashlib.sha256()
        for chunk in self.chunks():
            size += len(chunk)
            digest.update(chunk)
        return size, digest.hexdigest()


def upload(
    connection: Connection,
    purpose: Purpose,
    path: Path,
    said: Mapping[str, Any],
    idempotency_key: str | None,
    progress: Progress | None,
) -> Any:
    """What the file has become, as JSON. `said` is what is said of it."""
    source = Source(path)
    if source.is_large:
        return _Pieces(connection, source, progress).send(purpose, said, idempotency_key)
    if path.is_dir():
        return send_file(connection, PATHS[purpose], (source.name, FolderZip(path)), as_form(said), idempotency_key)
    with path.open("rb") as file:
        return send_file(connection, PATHS[purpose], (source.name, file), as_form(said), idempotency_key)


class _Pieces:
    """One file on its way in pieces."""

    def __init__(self, connection: Connection, source: Source, progress: Progress | None) -> None:
        self._connection = connection
        self._source = source
        self._progress = progress or (lambda *_: None)
        self._size, self._sha256 = source.measured()
        self._failures = 0
        self._reached = 0

    def send(self, purpose: Purpose, said: Mapping[str, Any], idempotency_key: str | None) -> Any:
        file = {"filename": self._source.name, "size_bytes": self._size, "sha256": self._sha256}
        announced = {"purpose": purpose, **file, **said}
        headers = key_headers(idempotency_key)
        found = None if idempotency_key else self._patiently(lambda: self._begun(announced))
        found = found or self._patiently(
            lambda: self._connection.request("POST", "/v1/uploads", json=announced, headers=headers)
        )
        place = f"/v1/uploads/{segment(found['id'])}"
        try:
            self._patiently(lambda: self._send_rest(place))
            return self._patiently(lambda: self._connection.request("POST", f"{place}/finish", timeout=UPLOAD_TIMEOUT))
        except AttuneError as error:
            if error.status == 422 or error.code == "too_many_pieces":  # nobody goes on with it
                with suppress(AttuneError):  # it is forgotten in time: what was wrong matters more
                    self._connection.request("DELETE", place)
            raise

    def _begun(self, announced: dict[str, Any]) -> Any:
        """An upload of the same file that an earlier call left, if there is one."""
        on_bad_row = "fail" if announced["purpose"] == "dataset" else None
        sought = {"name": None, "columns": None, "on_bad_row": on_bad_row, "column": None, **announced}
        for one in self._connection.pages("/v1/uploads", []):
            if {name: one[name] for name in sought} == sought and one["status"] == "receiving":
                return one
        return None

    def _send_rest(self, place: str) -> None:
        """From where the server has got to, piece by piece."""
        found = self._connection.request("GET", place)
        offset = found["offset"]
        if found["status"] == "finished":
            return
        self._has_reached(offset)
        self._progress(offset, self._size)
        chunks = self._source.chunks(offset)
        rest = bytearray()
        while offset < self._size:
            length = min(PIECE_BYTES, self._size - offset)
            headers = {"Upload-Offset": str(offset), "Content-Length": str(length)}
            headers["Content-Type"] = "application/offset+octet-stream"
            body = self._piece(chunks, rest, offset, length)
            answer = self._connection.send("PATCH", place, content=body, headers=headers, timeout=UPLOAD_TIMEOUT)
            offset = int(answer["Upload-Offset"])
            self._has_reached(offset)

    def _has_reached(self, offset: int) -> None:
        """A try that brought something was no failure, though its connection broke."""
        if offset > self._reached:
            self._reached, self._failures = offset, 0

    def _piece(self, chunks: Iterator[bytes], rest: bytearray, offset: int, length: int) -> Iterator[bytes]:
        """So many bytes of the chunks, what is over kept in `rest`; each is told of as it leaves."""
        left = length
        while left:
            chunk = bytes(rest) or next(chunks, b"")
            if not chunk:
                raise ValueError(f"{self._source.path} became shorter while it was sent")
            rest[:] = chunk[left:]
            chunk = chunk[:left]
            left -= len(chunk)
            yield chunk
            self._progress(offset + length - left, self._size)

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """What `ask` answers, which is asked again where the connection broke or the server will answer in a moment."""
        while True:
            try:
                return ask()
            except AttuneError as error:
                if error.code == "upload_finishing":
                    time.sleep(1.0)
                    continue
                self._failures += 1
                if not _passes(error) or self._failures == MOST_TRIES:
                    raise
            time.sleep(FIRST_WAIT_SECONDS * 2**self._failures)


def _passes(error: AttuneError) -> bool:
    return error.code in PASSING_CODES or error.status in PASSING


def _without(start: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks but for the first `start` bytes."""
    for chunk in chunks:
        if start < len(chunk):
            yield chunk[start:]
        start = max(0, start - len(chunk))
