"""The spans of work beside the jobs: an export, a push, the check of an upload, a delivery to a webhook.

Attributes are ids, names from closed lists and numbers, as those of an attempt at a job: no address, no name of a repository.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from service.store.traces import traced
from service.tracing import SpanKind, Tracing, failed, nanoseconds, traceparent_of
from worker.traces import Errand, ErrandEnded


@contextmanager
def span_of(tracing: Tracing, errand: Errand) -> Iterator[ErrandEnded]:
    """Below what asked for it, or a trace of its own; before the first try a span of how long it waited."""
    time, named = datetime.now(UTC), {f"attune.{errand.of}_id": errand.id}
    if errand.attempt == 1 and errand.traceparent is not None:
        asked_at = min(errand.asked_at, time)  # by the database's clock
        tracing.start("queued", errand.traceparent, asked_at, named).end(nanoseconds(time))
    named |= {f"attune.{name}": value for name, value in errand.attributes.items()}
    told = {**named, "attune.attempt": errand.attempt, "attune.project_id": errand.project_id}
    kind = SpanKind.CLIENT if errand.name == "deliver" else SpanKind.CONSUMER
    span = tracing.start(errand.name, errand.traceparent, time, told, kind)
    state: str = "lost"
    code: str | None = "worker_lost"

    def ended(is_left: str, because: str | None) -> None:
        nonlocal state, code
        state, code = is_left, because

    try:
        with traced(traceparent_of(span)):
            yield ended
    except Exception as error:
        code = type(error).__name__
        raise
    finally:
        span.set_attribute("attune.state", state)
        if code is not None:
            failed(span, code)
        span.end()
