"""OpenTelemetry traces over OTLP/HTTP. Imported only where the operator switches them on: off, nothing of OpenTelemetry is loaded.

The standard `OTEL_` variables say where spans go and how many. A thread of the SDK sends them, from a queue that is bounded: a collector
that is away costs spans, and no request and no job waits for it.
"""

import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from typing import Any

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.propagate import extract
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
    from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise ValueError(f"ATTUNE_TRACES needs the extra `tracing` of attune: {error}") from error

PROTOCOL = "http/protobuf"
CLOSE_SECONDS = 3.0  # the longest that a process which ends waits for its last spans to leave

Attributes = Mapping[str, str | int | float | bool]


class Tracing:
    """Makes spans by times that others have measured, since much of what is traced happened in another process."""

    def __init__(self, service: str, instance: str) -> None:
        if (asked := _protocol()) != PROTOCOL:
            raise ValueError(f"OTEL_EXPORTER_OTLP_PROTOCOL: spans are sent by {PROTOCOL}, not by {asked!r}")
        named = {"service.name": service, "service.version": version("attune"), "service.instance.id": instance}
        self._ids = _Ids()
        self._provider = TracerProvider(
            resource=Resource.create(named).merge(OTELResourceDetector().detect()),  # the environment's last word
            id_generator=self._ids,
            shutdown_on_exit=False,  # it waits as long as the collector likes
        )
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("attune", version("attune"))

    def start_request(self, method: str, headers: Mapping[str, str]) -> Span:
        """The span of a request, in its client's trace where its headers name one (`OTEL_PROPAGATORS`)."""
        attributes = {"http.request.method": method}
        return self._tracer.start_span(method, extract(headers), SpanKind.SERVER, attributes)

    def start(
        self,
        name: str,
        parent: Span | str | None,
        time: datetime,
        attributes: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        """A span below another of this process, or below the `traceparent` of another process."""
        return self._tracer.start_span(name, _below(parent), kind, dict(attributes), start_time=nanoseconds(time))

    def start_attempt(
        self, job_id: str, attempt: int, parent: str | None, time: datetime, attributes: Attributes
    ) -> Span:
        """The span of an attempt at a job. Its ids follow from the attempt's, so that whoever finds it lost can send it in its worker's
        place, and a job that no traced request queued has one trace for all its attempts."""
        with self._ids.chosen(trace_id=_number(job_id, 16), span_id=_number(f"{job_id} {attempt}", 8)):
            return self.start("attempt", parent, time, attributes, SpanKind.CONSUMER)

    def close(self) -> None:
        """Send what waits, for a few seconds at most."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(CLOSE_SECONDS)


def traceparent_of(span: Span) -> str | None:
    """What another process continues the trace by; None where the SDK is disabled."""
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
    return carrier.get("traceparent")


def failed(span: Span, code: str) -> None:
    """Mark a span as failed. A code and no message: those may repeat what a user wrote."""
    span.set_status(Status(StatusCode.ERROR, code))


def nanoseconds(time: datetime) -> int:
    """Unix time, to the microsecond that a datetime has."""
    return round(time.timestamp() * 1e6) * 1000


def _below(parent: Span | str | None) -> Any:
    if isinstance(parent, Span):
        return set_span_in_context(parent)
    return TraceContextTextMapPropagator().extract({} if parent is None else {"traceparent": parent})


def _protocol() -> str:
    general = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", PROTOCOL)
    return os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general)


def _number(text: str, size_bytes: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size_bytes]) or 1  # zero is no id


class _Ids(RandomIdGenerator):
    """Random ids, but where one was chosen for the next span of this thread."""

    def __init__(self) -> None:
        self._next = threading.local()

    @contextmanager
    def chosen(self, trace_id: int, span_id: int) -> Iterator[None]:
        self._next.trace_id, self._next.span_id = trace_id, span_id
        try:
            yield
        finally:
            self._next.trace_id = self._next.span_id = None

    def generate_trace_id(self) -> int:
        return getattr(self._next, "trace_id", None) or super().generate_trace_id()

    def generate_span_id(self) -> int:
        return getattr(self._next, "span_id", None) or super().generate_span_id()


__all__ = ["Span", "SpanKind", "Tracing", "failed", "nanoseconds", "traceparent_of"]
