"""Spans of a worker's attempts: the wait in the queue, the attempt, the phases of its run, their steps, the files that it stores.

They are made of the events that the worker relays, by the times in them, so the training process needs neither an exporter nor a way to a
collector. Attributes are ids, names from closed lists and numbers: nothing that a user wrote.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from alignment_core.events import (
    CheckpointSaved,
    Event,
    ImagesScored,
    PhaseChanged,
    PhaseDivided,
    PhaseProgressed,
    RunCompleted,
    RunFailed,
    RunStarted,
    SamplesDrawn,
    StepCompleted,
    WarningRaised,
)
from service.store.leases import LostAttempt
from service.store.records.jobs import Claim
from service.tracing import Span, Tracing, failed, nanoseconds
from worker.errand_traces import span_of
from worker.telemetry import kind_named
from worker.traces import Errand, ErrandEnded

SHORTEST_RANGE = timedelta(seconds=10)
RANGE_SHARE = (
    0.02  # of the time that the attempt has trained: so a long one has a few hundred ranges, and not a million steps
)
MOST_SPANS = 2000  # below an attempt; a run with more says so at its attempt's span


@dataclass
class _Steps:
    """A range of steps that is still growing."""

    first: int
    last: int
    began: datetime
    ended: datetime


class _Attempt:
    """The spans of an attempt that are open: its own, that of the phase, and the steps that have none yet."""

    def __init__(self, tracing: Tracing, span: Span) -> None:
        self.span, self.phase = span, span
        self.steps: _Steps | None = None
        self.last_step: datetime | None = None
        self.first_step: datetime | None = None
        self.latest = datetime.min.replace(tzinfo=UTC)
        self.num_spans = self.num_left_out = 0
        self.has_said_why = False
        self._tracing = tracing

    def begin(self, name: str, time: datetime, parent: Span, **attributes: str | int | float) -> Span | None:
        if self.num_spans >= MOST_SPANS:
            self.num_left_out += 1
            return None
        self.num_spans += 1
        named = {f"attune.{key}": value for key, value in attributes.items()}
        return self._tracing.start(name, parent, time, named)

    def enter(self, phase: str | None, time: datetime) -> None:
        """End the phase that was; a training process's clock may be a little behind this one's."""
        self.end_steps()
        self.latest = time = max(time, self.latest)
        if self.phase is not self.span:
            self.phase.end(nanoseconds(time))
        began = None if phase is None else self.begin(phase, time, self.span)
        self.phase = began or self.span

    def step(self, event: StepCompleted) -> None:
        if self.first_step is None:  # a span of its own: with it what is done once, a compiler's work for instance
            self.first_step = event.time
            self.steps = _Steps(event.step, event.step, _began(event), event.time)
            return self.end_steps()
        if self.steps is None:
            self.steps = _Steps(event.step, event.step, _began(event), event.time)
        self.steps.last, self.steps.ended = event.step, event.time
        if event.time - self.steps.began >= max(SHORTEST_RANGE, RANGE_SHARE * (event.time - self.first_step)):
            self.end_steps()

    def end_steps(self) -> None:
        if (done := self.steps) is None:
            return
        self.steps = None
        span = self.begin("steps", max(done.began, self.latest), self.phase, first_step=done.first, last_step=done.last)
        self.latest = max(done.ended, self.latest)
        if span is not None:
            span.end(nanoseconds(self.latest))

    def end(self, time: datetime) -> None:
        self.enter(None, time)
        if self.num_left_out:
            self.span.set_attribute("attune.spans_left_out", self.num_left_out)
        self.span.end(nanoseconds(self.latest))


def _began(event: StepCompleted) -> datetime:
    return event.time - timedelta(seconds=event.step_seconds)


class AttemptTraces:
    """`worker.traces.Traces` that are switched on."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._attempts: dict[str, _Attempt] = {}  # by the ids of the jobs that run here

    def claimed(self, claim: Claim) -> None:
        job, time = claim.job, claim.job.updated_at
        if claim.attempt == 1 and job.queued_at is not None and claim.traceparent is not None:
            waited = self._tracing.start("queued", claim.traceparent, job.queued_at, {"attune.job_id": job.id})
            waited.end(nanoseconds(time))
        named = {"attune.worker_id": job.worker_id or "", "attune.project_id": job.project_id}
        span = self._start(job.id, claim.attempt, claim.traceparent, time, named)
        attempt = self._attempts[job.id] = _Attempt(self._tracing, span)
        attempt.enter("starting", time)

    def heard(self, job_id: str, event: Event) -> None:
        attempt = self._attempts[job_id]
        match event:
            case RunStarted():
                attempt.enter("loading", event.time)
                if event.resumed_from_step is not None:
                    attempt.span.set_attribute("attune.resumed_from_step", event.resumed_from_step)
            case PhaseChanged():
                attempt.enter(event.phase, event.time)
            case RunCompleted():
                attempt.enter("uploading", event.time)
            case StepCompleted():
                attempt.step(event)
            case PhaseProgressed():
                attempt.phase.set_attributes({"attune.done": event.done, "attune.cached": event.cached})
            case PhaseDivided():
                seconds = {f"attune.seconds.{part}": lasted for part, lasted in event.seconds.items()}
                attempt.phase.add_event("phase_divided", seconds, nanoseconds(event.time))
            case WarningRaised():
                attempt.span.add_event("warning", {"attune.code": event.code}, nanoseconds(event.time))
            case RunFailed():
                attempt.has_said_why = True
                failed(attempt.span, event.code)
            case _:
                pass

    @contextmanager
    def storing(self, job_id: str, event: Event) -> Iterator[None]:
        attempt = self._attempts[job_id]
        told: dict[str, str | int | float] = {"event": event.type}
        if isinstance(event, CheckpointSaved | SamplesDrawn):
            told["step"] = event.step
        if isinstance(event, ImagesScored):
            told["images"] = event.done
        span = attempt.begin("store", datetime.now(UTC), attempt.span, **told)
        try:
            yield
        except Exception as error:
            if span is not None:
                failed(span, type(error).__name__)
            raise
        finally:
            if span is not None:
                span.end()

    def ended(self, job_id: str, state: str, time: datetime) -> None:
        if (attempt := self._attempts.pop(job_id, None)) is not None:
            attempt.span.set_attribute("attune.state", state)
            if state == "failed" and not attempt.has_said_why:
                failed(attempt.span, "failed")
            attempt.end(time)

    def forget(self, job_id: str) -> None:
        """The spans below it are sent; its own is sent by whoever finds it lost."""
        if (attempt := self._attempts.pop(job_id, None)) is not None:
            attempt.enter(None, datetime.now(UTC))

    def errand(self, errand: Errand) -> AbstractContextManager[ErrandEnded]:
        return span_of(self._tracing, errand)

    def found_lost(self, lost: Sequence[LostAttempt]) -> None:
        for one in lost:
            span = self._start(one.job_id, one.attempt, one.traceparent, one.claimed_at, {"attune.state": "lost"})
            failed(span, "worker_lost")
            span.end(nanoseconds(one.found_at))

    def close(self) -> None:
        self._tracing.close()

    def _start(self, job_id: str, attempt: int, traceparent: str | None, time: datetime, named: dict[str, str]) -> Span:
        given = {"attune.job_id": job_id, "attune.kind": kind_named(job_id), "attune.attempt": attempt, **named}
        return self._tracing.start_attempt(job_id, attempt, traceparent, time, given)
