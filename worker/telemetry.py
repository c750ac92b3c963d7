"""Counters of one worker for Prometheus, served on a port of its own where `ATTUNE_WORKER_METRICS_PORT` names one.

Labels are few: kinds of jobs, phases, states and reasons are closed lists. A job's id is a label only while this worker runs it.
"""

import contextlib
import math
from collections.abc import Mapping
from datetime import datetime

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server

from alignment_core.events import (
    CandidatesDrawn,
    Event,
    ImagesScored,
    PhaseChanged,
    RunCompleted,
    RunStarted,
    StepCompleted,
    ThroughputMeasured,
)
from service.store.kinds import kind_of
from service.store.records.jobs import Claim
from service.store.unavailable import Reason

SECONDS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 12 * 3600, 86_400, math.inf)
GIB = 2**30

KINDS: Mapping[str, str] = {"job": "job", "eval": "evaluation", "vfy": "verification", "cand": "candidates"}


class WorkerTelemetry:
    """What a worker counts, from the events that its runs say."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._attempts = Counter(
            "attune_attempts",
            "Attempts that ended, by the job's state then.",
            ["kind", "state"],
            registry=self.registry,
        )
        self._lost = Counter(
            "attune_attempts_lost", "Attempts of other workers that this one found lost.", registry=self.registry
        )
        self._phases = Histogram(
            "attune_phase_seconds",
            "Seconds in each phase of an attempt.",
            ["kind", "phase"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self._objects = Counter(
            "attune_object_store_errors", "Failures of the object store.", ["reason"], registry=self.registry
        )
        self._speed = Gauge(
            "attune_job_examples_per_second", "Pairs, or images of online methods.", ["job_id"], registry=self.registry
        )
        self._images = Gauge(
            "attune_job_images_per_second", "Images that an evaluation draws.", ["job_id"], registry=self.registry
        )
        self._mfu = Gauge(
            "attune_job_gpu_use_ratio", "FLOP/s over the cards' peak.", ["job_id"], registry=self.registry
        )
        self._memory = Gauge(
            "attune_job_gpu_memory_peak_bytes", "The most that tensors took.", ["job_id"], registry=self.registry
        )
        self._waiting = Gauge(
            "attune_job_data_wait_ratio", "Share of time without a next batch.", ["job_id"], registry=self.registry
        )
        self._phase: dict[str, tuple[str, datetime]] = {}  # by the ids of the jobs that run here
        self._examples_per_step: dict[str, int] = {}
        self._scored: dict[str, tuple[int, datetime]] = {}

    def serve(self, host: str, port: int) -> None:
        """Answer `/metrics` from a thread of its own."""
        start_http_server(port, host, self.registry)

    def claimed(self, claim: Claim) -> None:
        """An attempt begins here."""
        job = claim.job
        if job.attempt <= 1 and job.queued_at is not None and job.started_at is not None:
            waited = max(0.0, (job.started_at - job.queued_at).total_seconds())
            self._phases.labels(kind_named(job.id), "queued").observe(waited)
        self._enter(job.id, "starting", job.updated_at)

    def heard(self, job_id: str, event: Event) -> None:
        """Something that the run said."""
        match event:
            case RunStarted():
                self._examples_per_step[job_id] = event.examples_per_step
                self._enter(job_id, "loading", event.time)
            case PhaseChanged():
                self._enter(job_id, event.phase, event.time)
            case RunCompleted():
                self._enter(job_id, "uploading", event.time)
            case StepCompleted() if event.step_seconds > 0:
                self._speed.labels(job_id).set(self._examples_per_step.get(job_id, 0) / event.step_seconds)
            case ImagesScored() | CandidatesDrawn():
                self._draw(job_id, event)
            case ThroughputMeasured():
                self._measure(job_id, event)
            case _:
                pass

    def ended(self, job_id: str, state: str, time: datetime) -> None:
        """The attempt ended here, and the job's own series with it."""
        self._enter(job_id, None, time)
        self._attempts.labels(kind_named(job_id), state).inc()
        self.forget(job_id)

    def forget(self, job_id: str) -> None:
        """Let go of all series of the job."""
        self._phase.pop(job_id, None)
        self._scored.pop(job_id, None)
        self._examples_per_step.pop(job_id, None)
        for gauge in (self._speed, self._images, self._mfu, self._memory, self._waiting):
            with contextlib.suppress(KeyError):  # not all of them were told
                gauge.remove(job_id)

    def found_lost(self, num: int) -> None:
        self._lost.inc(num)

    def count_object_error(self, reason: Reason) -> None:
        self._objects.labels(reason).inc()

    def _enter(self, job_id: str, phase: str | None, time: datetime) -> None:
        """Close the phase that was; a training process's clock may be a little off this one's."""
        if (before := self._phase.pop(job_id, None)) is not None:
            name, since = before
            self._phases.labels(kind_named(job_id), name).observe(max(0.0, (time - since).total_seconds()))
        if phase is not None:
            self._phase[job_id] = (phase, time)

    def _draw(self, job_id: str, event: ImagesScored | CandidatesDrawn) -> None:
        if (before := self._scored.get(job_id)) is not None:
            done, since = before
            if (seconds := (event.time - since).total_seconds()) > 0:
                self._images.labels(job_id).set((event.done - done) / seconds)
        self._scored[job_id] = (event.done, event.time)

    def _measure(self, job_id: str, event: ThroughputMeasured) -> None:
        found = event.throughput
        self._waiting.labels(job_id).set(found.waiting_share)
        if found.mfu is not None:
            self._mfu.labels(job_id).set(found.mfu)
        if found.peak_device_gib is not None:
            self._memory.labels(job_id).set(found.peak_device_gib * GIB)


def kind_named(job_id: str) -> str:
    return KINDS[kind_of(job_id) or "job"]
