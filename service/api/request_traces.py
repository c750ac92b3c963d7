"""A span for every request, and its trace for what the request queues. Imported only where traces are switched on."""

from typing import Final

import structlog
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.api.browsers import FOR_MACHINES
from service.api.middleware import METHODS
from service.store.ids import is_id
from service.store.traces import traced
from service.tracing import Span, Tracing, failed, traceparent_of

OTHER: Final = "_OTHER"  # the semantic conventions' name for a method that nobody knows


class RequestTraces:
    """Around everything that answers. Probes and Prometheus are left out; queries, headers and bodies are in no attribute."""

    def __init__(self, app: ASGIApp, tracing: Tracing) -> None:
        self.app = app
        self.tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in FOR_MACHINES:
            return await self.app(scope, receive, send)
        method = scope["method"] if scope["method"] in METHODS else OTHER
        span, status = self.tracing.start_request(method, dict(Headers(scope=scope))), 0

        async def send_seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _note_answer(span, Headers(raw=message["headers"]))
            await send(message)

        trace = {"trace_id": f"{span.get_span_context().trace_id:032x}"}
        try:
            with structlog.contextvars.bound_contextvars(**trace), traced(traceparent_of(span)):
                await self.app(scope, receive, send_seen)
        finally:
            _end(span, method, scope, status)


def _note_answer(span: Span, headers: Headers) -> None:
    for name, attribute in (("x-request-id", "attune.request_id"), ("location", "attune.location")):
        if (value := headers.get(name)) is not None:
            span.set_attribute(attribute, value.partition("?")[0])


def _end(span: Span, method: str, scope: Scope, status: int) -> None:
    if (route := getattr(scope.get("route"), "path", None)) is not None:
        span.update_name(f"{method} {route}")
        span.set_attribute("http.route", route)
    for name, value in scope.get("path_params", {}).items():
        if name.endswith("_id") and is_id(str(value)):
            span.set_attribute(f"attune.{name}", value)
    if status:
        span.set_attribute("http.response.status_code", status)
    if status >= 500 or not status:
        failed(span, str(status or "no answer"))
    span.end()
