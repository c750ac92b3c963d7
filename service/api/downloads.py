"""Bytes of the object store over HTTP: a redirect where the store can sign one, else the bytes themselves.

The bytes come with a strong `ETag` (the file's SHA-256), byte ranges, conditional requests and `HEAD`, so that any
download tool can resume.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from service.api.context import Parts
from service.api.problems import Responses, missing, problems
from service.api.ranges import RangeNotSatisfiableError, parse_range
from service.errors import ApiError
from service.store.records.base import StoredFile
from service.store.records.candidates import CandidateImageRecord
from service.store.records.runs import SampleRecord

HTML = "text/html; charset=utf-8"
BYTES_EXAMPLE = "the bytes of the file"


def _headers(*names: str) -> dict[str, Any]:
    described = {
        "ETag": "The file's SHA-256, quoted.",
        "Accept-Ranges": "`bytes`",
        "Content-Range": "Which part this is.",
        "Content-Disposition": "The name to save it under.",
        "Location": "A link that works for some minutes.",
    }
    return {name: {"description": described[name], "schema": {"type": "string"}} for name in names}


def file_responses(media_type: str, kind: str, prefix: str, *, redirects: bool = True) -> Responses:
    """The OpenAPI `responses` of an operation that ends in `send_file`, or without `redirects` in `send_page`."""
    content = {media_type: {"schema": {"type": "string", "format": "binary"}, "example": BYTES_EXAMPLE}}
    found: Responses = {
        200: {"description": "The file", "content": content, "headers": _headers("ETag", "Accept-Ranges")},
        206: {
            "description": "The part that `Range` asked for",
            "content": content,
            "headers": _headers("Content-Range"),
        },
        304: {"description": "Unchanged: `If-None-Match` names this file", "headers": _headers("ETag")},
        **missing(kind, prefix),
        **problems(416),
    }
    if redirects:
        found[307] = {"description": "The file is elsewhere, for some minutes", "headers": _headers("Location")}
    return found


PAGE_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"


def send_page(request: Request, page: "Body") -> Response:
    """Answer GET or HEAD of an HTML page, to be shown and not saved.

    It holds what users wrote, so a browser gives it no origin, lets it run nothing and load nothing. Never a redirect: the
    store would send it without these headers.
    """
    headers = {"Content-Disposition": "inline", "Content-Security-Policy": PAGE_POLICY}
    return send_body(request, page, headers, HTML)


def send_file(request: Request, parts: Parts, file: StoredFile, filename: str, media_type: str) -> Response:
    """Answer GET or HEAD of one stored file."""
    body, headers = body_of(parts, file), {"Content-Disposition": attachment(filename)}
    if (answer := _without_bytes(request, body, headers, media_type)) is not None:
        return answer
    if (url := parts.objects.url(file.object_key, parts.settings.signed_url_seconds, filename)) is not None:
        return RedirectResponse(url, 307, {"Cache-Control": "no-store"})
    return send_body(request, body, headers, media_type)


def send_picture(request: Request, parts: Parts, picture: SampleRecord | CandidateImageRecord, name: str) -> Response:
    """Answer GET or HEAD of a picture, to be saved as `name`."""
    file = StoredFile(path=name, size_bytes=picture.size_bytes, sha256=picture.sha256, object_key=picture.object_key)
    return send_file(request, parts, file, name, "image/png")


class Body(NamedTuple):
    """What is sent: its size, the hash that names it, and its bytes from a place up to and without another."""

    size_bytes: int
    sha256: str
    open_range: Callable[[int, int], Iterator[bytes]]

    @property
    def headers(self) -> dict[str, str]:
        return {"ETag": f'"{self.sha256}"', "Accept-Ranges": "bytes", "Cache-Control": "private, no-cache"}


def send_body(request: Request, body: Body, headers: Mapping[str, str], media_type: str) -> Response:
    """Answer GET or HEAD with the bytes, all or those that `Range` asks for, unless the client has them."""
    if (answer := _without_bytes(request, body, headers, media_type)) is not None:
        return answer
    whole = {**headers, **body.headers}
    wanted = request.headers.get("range")
    if request.headers.get("if-range", whole["ETag"]) != whole["ETag"]:
        wanted = None  # the client's part is of another file: it gets all of this one
    try:
        part = parse_range(wanted, body.size_bytes)
    except RangeNotSatisfiableError as error:
        detail = f"the range {error} lies behind the last byte; the file has {body.size_bytes} bytes"
        content_range = {"Content-Range": f"bytes */{body.size_bytes}"}
        raise ApiError(416, "range_not_satisfiable", detail, headers=content_range) from error
    status, start, length = 200, 0, body.size_bytes
    if part is not None:
        status, start, length = 206, part.start, part.length
        whole["Content-Range"] = part.content_range(body.size_bytes)
    chunks = body.open_range(start, start + length)
    return StreamingResponse(chunks, status, {**whole, "Content-Length": str(length)}, media_type)


def body_of(parts: Parts, file: StoredFile) -> Body:
    """A stored file."""
    return Body(file.size_bytes, file.sha256, partial(parts.objects.open_range, file.object_key))


def _without_bytes(request: Request, body: Body, headers: Mapping[str, str], media_type: str) -> Response | None:
    """The answers that need no bytes: 304, and HEAD."""
    whole = {**headers, **body.headers}
    if _names(request.headers.get("if-none-match"), whole["ETag"]):
        return Response(status_code=304, headers=whole)
    if request.method == "HEAD":  # a link is signed for GET alone, and everything HEAD tells is known here
        return Response(headers={**whole, "Content-Length": str(body.size_bytes)}, media_type=media_type)
    return None


def attachment(filename: str) -> str:
    """`Content-Disposition` for a name of any characters (RFC 6266): plain for old clients, UTF-8 for the rest."""
    plain = "".join(char if char.isascii() and char.isprintable() and char not in '"\\%' else "_" for char in filename)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def _names(header: str | None, etag: str) -> bool:
    """Whether `If-None-Match` lists this tag, or any."""
    return header is not None and (
        header.strip() == "*" or etag in (part.strip().removeprefix("W/") for part in header.split(","))
    )
