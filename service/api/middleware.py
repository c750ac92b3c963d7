"""What surrounds every request: its id, its log line, its counters, its limits, and the answer when all else failed."""

import re
import time
from collections.abc import Collection
from secrets import token_hex
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.once import one_request
from service.api.telemetry import Telemetry
from service.errors import ApiError, internal_error, problem_response

log = structlog.get_logger()

REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,128}$")
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
CLIENT_GONE = 499  # what nginx writes down for a client that left before its answer
MULTIPART_OVERHEAD_BYTES = 1 << 20

DEFAULT_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class RequestContext:
    """Gives a request its id, binds it to the log, counts it, and answers 500 for what nobody expected.

    A client's own `X-Request-ID` is kept when it is short and plain, so that one id can follow a call through several
    services; the answer carries it in either case.
    """

    def __init__(self, app: ASGIApp, telemetry: Telemetry) -> None:
        self.app = app
        self.telemetry = telemetry

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        request_id = _request_id(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id
        status, started = 0, time.perf_counter()

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in DEFAULT_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id), one_request():
            try:
                await self.app(scope, receive, send_with_headers)
            except ClientDisconnect:  # nobody is left to answer, and nothing of ours went wrong
                status = CLIENT_GONE
                log.info("client_gone", method=scope["method"], path=scope["path"])
            except Exception:
                log.exception("request_failed", method=scope["method"], path=scope["path"])
                if status:  # the answer has begun: cutting the connection is all that is left to say
                    raise
                await problem_response(Request(scope), internal_error())(scope, receive, send_with_headers)
            finally:
                self._finish(scope, status, time.perf_counter() - started)

    def _finish(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        self.telemetry.count_request(method, _route_of(scope), status, seconds)
        ids = {name: value for name, value in scope.get("path_params", {}).items() if name.endswith("_id")}
        log.info("request", method=method, path=scope["path"], status=status, seconds=round(seconds, 4), **ids)


class BodyLimit:
    """Refuses bodies over a limit with 413: by `Content-Length` before reading, by counting while reading."""

    def __init__(
        self,
        app: ASGIApp,
        max_json_bytes: int,
        max_upload_bytes: int,
        upload_paths: Collection[str],
        pieces_below: str,
    ) -> None:
        """Files are posted to `upload_paths`, and patched in pieces below another."""
        self.app = app
        self.max_json_bytes = max_json_bytes
        self.max_upload_bytes = max_upload_bytes
        self.upload_paths = upload_paths
        self.pieces_below = pieces_below

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        is_piece = scope["method"] == "PATCH" and scope["path"].startswith(self.pieces_below)
        is_upload = is_piece or scope["path"].rstrip("/") in self.upload_paths
        limit = self.max_upload_bytes + MULTIPART_OVERHEAD_BYTES if is_upload else self.max_json_bytes
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            return await problem_response(Request(scope), too_large(limit))(scope, receive, send)
        received = 0

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                # FastAPI turns whatever breaks while it reads a body into 400, and lets only this class through.
                raise HTTPException(413, too_large(limit).detail)
            return message

        await self.app(scope, receive_counted, send)


def too_large(limit: int) -> ApiError:
    return ApiError(413, "content_too_large", f"the body is larger than the {limit} bytes that are accepted here")


def _request_id(given: str | None) -> str:
    return given if given and REQUEST_ID.match(given) else f"req_{token_hex(12)}"


def _route_of(scope: Scope) -> str:
    """The path as it is declared, so that ids do not make a counter each."""
    return getattr(scope.get("route"), "path", None) or "unmatched"
