"""A collector of OpenTelemetry: receives spans by OTLP/HTTP, as the protocol's own messages."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.servers.receiver import Receiver, receiving


@dataclass(frozen=True)
class SentSpan:
    """A span as it came over the wire; times in seconds."""

    name: str
    service: str
    trace_id: str
    span_id: str
    parent_id: str
    start: float
    end: float
    attributes: dict[str, object]
    events: tuple[str, ...]
    error: str | None


@dataclass(frozen=True)
class Collector:
    receiver: Receiver

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.receiver.port}"

    def environment(self) -> dict[str, str]:
        """The standard variables of a process that sends its spans here, soon."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "100"}

    def bodies(self) -> bytes:
        return b"".join(one.body for one in list(self.receiver.requests))

    def spans(self) -> list[SentSpan]:
        return [one for request in list(self.receiver.requests) for one in _spans_in(request.body)]


@contextmanager
def collecting() -> Iterator[Collector]:
    with receiving() as receiver:
        yield Collector(receiver)


def _spans_in(body: bytes) -> Iterator[SentSpan]:
    for sent in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = _plain(sent.resource.attributes)["service.name"]
        for span in (one for scope in sent.scope_spans for one in scope.spans):
            yield SentSpan(
                name=span.name,
                service=str(service),
                trace_id=span.trace_id.hex(),
                span_id=span.span_id.hex(),
                parent_id=span.parent_span_id.hex(),
                start=span.start_time_unix_nano / 1e9,
                end=span.end_time_unix_nano / 1e9,
                attributes=_plain(span.attributes),
                events=tuple(one.name for one in span.events),
                error=span.status.message if span.status.code == span.status.STATUS_CODE_ERROR else None,
            )


def _plain(pairs) -> dict[str, object]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in pairs}
