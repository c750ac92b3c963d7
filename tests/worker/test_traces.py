"""What a collector is sent of an attempt: real spans over OTLP/HTTP, from the request that queued the job to its steps."""

import dataclasses
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from alignment_core.events import PhaseChanged, RunFailed, RunStarted, StepCompleted
from service.store import leases
from service.store.records.jobs import JobRecord
from service.store.traces import traced
from service.tracing import Tracing
from tests.servers.otlp import Collector, SentSpan
from tests.worker.conftest import World
from worker import attempt_traces
from worker.attempt_traces import AttemptTraces
from worker.parts import WorkerParts
from worker.run import run_job
from worker.sweep import sweep

TRACE, REQUEST = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{REQUEST}-01"


def tracing_worker(world: World, name: str = "first") -> WorkerParts:
    return dataclasses.replace(world.worker(name), traces=AttemptTraces(Tracing("attune-worker", name)))


def claimed(world: World, job: JobRecord) -> AttemptTraces:
    """Traces that have been told of an attempt at the job."""
    claim = leases.claim(world.store, job.id, "first", 60)
    assert claim is not None
    traces = AttemptTraces(Tracing("attune-worker", "first"))
    traces.claimed(claim)
    return traces


def by_name(spans: list[SentSpan]) -> dict[str, SentSpan]:
    return {one.name: one for one in spans}


def test_one_trace_leads_from_the_request_to_the_steps(world: World, collector: Collector) -> None:
    with traced(TRACEPARENT):
        job = world.queue(steps=10, every=4)
    parts = tracing_worker(world)
    run_job(parts, job.id)
    parts.traces.close()
    spans = collector.spans()
    assert {one.trace_id for one in spans} == {TRACE}
    assert {one.service for one in spans} == {"attune-worker"}
    named = by_name(spans)
    attempt = named["attempt"]
    assert (attempt.parent_id, named["queued"].parent_id) == (REQUEST, REQUEST)
    assert attempt.attributes["attune.job_id"] == job.id
    assert (attempt.attributes["attune.kind"], attempt.attributes["attune.attempt"]) == ("job", 1)
    assert (attempt.attributes["attune.state"], attempt.error) == ("succeeded", None)
    for phase in ("starting", "loading", "training", "saving", "uploading"):
        assert named[phase].parent_id == attempt.span_id
    phases = {one.span_id for one in spans if one.parent_id == attempt.span_id}
    steps = sorted((one for one in spans if one.name == "steps"), key=lambda one: one.start)
    assert all(one.parent_id in phases for one in steps)
    ranges = [(one.attributes["attune.first_step"], one.attributes["attune.last_step"]) for one in steps]
    assert ranges[0] == (1, 1), "the first step is a span of its own"
    covered = [step for first, last in ranges for step in range(int(str(first)), int(str(last)) + 1)]
    assert covered == list(range(1, 11))
    stored = [
        one.attributes["attune.step"] for one in spans if one.attributes.get("attune.event") == "checkpoint_saved"
    ]
    assert stored == [4, 8, 10]
    inside = [one for one in spans if one is not attempt and one.name != "queued"]
    assert all(attempt.start - 1e-3 <= one.start <= one.end <= attempt.end + 1e-3 for one in inside)


def test_an_attempt_after_a_lost_worker_is_in_the_same_trace_and_the_lost_one_is_told_by_who_found_it(
    world: World, collector: Collector
) -> None:
    with traced(TRACEPARENT):
        job = world.queue(steps=4)
    claim = leases.claim(world.store, job.id, "lost", lease_seconds=0.01)
    assert claim is not None
    time.sleep(0.05)
    parts = tracing_worker(world, "second")
    sweep(parts)
    run_job(parts, job.id)
    parts.traces.close()
    lost, second = sorted(
        (one for one in collector.spans() if one.name == "attempt"),
        key=lambda one: str(one.attributes["attune.attempt"]),
    )
    assert (lost.trace_id, second.trace_id) == (TRACE, TRACE)
    assert (lost.parent_id, second.parent_id) == (REQUEST, REQUEST)
    assert (lost.attributes["attune.state"], lost.error) == ("lost", "worker_lost")
    assert second.attributes["attune.state"] == "succeeded"
    assert lost.span_id != second.span_id


def test_the_lost_worker_sent_spans_below_the_attempt_that_another_tells(world: World, collector: Collector) -> None:
    job = world.queue(steps=4)
    first, second = (AttemptTraces(Tracing("attune-worker", name)) for name in ("first", "second"))
    claim = leases.claim(world.store, job.id, "first", lease_seconds=0.01)
    assert claim is not None
    first.claimed(claim)
    first.forget(job.id)  # its lease was lost
    time.sleep(0.05)
    second.found_lost(leases.requeue_lost(world.store, 3).lost)
    for one in (first, second):
        one.close()
    named = by_name(collector.spans())
    assert named["starting"].parent_id == named["attempt"].span_id
    assert named["starting"].trace_id == named["attempt"].trace_id, "of a job that no traced request queued"


def test_a_failure_is_told_by_its_code_and_nothing_that_a_user_wrote_is_sent(
    world: World, collector: Collector
) -> None:
    job = world.queue(steps=4)
    traces = claimed(world, job)
    secret = "a prompt of the user's"
    told = RunFailed(code="dataset_unreadable", message=secret, category="user", retryable=False, hint=secret)
    traces.heard(job.id, told)
    traces.ended(job.id, "failed", datetime.now(UTC))
    traces.close()
    assert by_name(collector.spans())["attempt"].error == "dataset_unreadable"
    assert secret.encode() not in collector.bodies()


def test_many_steps_are_a_few_hundred_ranges(world: World, collector: Collector) -> None:
    job = world.queue(steps=4)
    traces, start = claimed(world, job), world.get(job).updated_at
    traces.heard(
        job.id,
        RunStarted(
            spec_sha256="",
            learning_rate=1.0,
            examples_per_step=1,
            total_steps=20_000,
            device="cpu",
            precision="fp32",
            versions={},
            time=start,
        ),
    )
    traces.heard(job.id, PhaseChanged(phase="training", time=start))
    for step in range(1, 20_001):
        time_ = start + timedelta(seconds=5 * step)  # 28 hours
        traces.heard(job.id, StepCompleted(step=step, total_steps=20_000, metrics={}, step_seconds=5.0, time=time_))
    traces.ended(job.id, "succeeded", time_)
    traces.close()
    steps = [one for one in collector.spans() if one.name == "steps"]
    assert 100 < len(steps) < 500
    assert (
        sum(
            int(str(one.attributes["attune.last_step"])) - int(str(one.attributes["attune.first_step"])) + 1
            for one in steps
        )
        == 20_000
    )


def test_a_run_of_many_phases_has_a_bounded_number_of_spans_and_says_so(
    world: World, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attempt_traces, "MOST_SPANS", 50)
    job = world.queue(steps=4)
    traces = claimed(world, job)
    for _ in range(100):
        traces.heard(job.id, PhaseChanged(phase="sampling"))
    traces.ended(job.id, "succeeded", datetime.now(UTC))
    traces.close()
    assert len(collector.spans()) == 51
    assert by_name(collector.spans())["attempt"].attributes["attune.spans_left_out"] == 51


@pytest.mark.parametrize("is_listening", [False, True], ids=["nobody listens", "it never answers"])
def test_a_collector_that_is_away_delays_no_job(
    world: World, monkeypatch: pytest.MonkeyPatch, is_listening: bool
) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if is_listening:
            server.listen()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
        job = world.queue(steps=4)
        parts = tracing_worker(world)
        began = time.monotonic()
        run_job(parts, job.id)
        assert world.get(job).state == "succeeded"
        ran = time.monotonic()
        parts.traces.close()
        assert time.monotonic() - ran < 5, "a worker that leaves does not wait for it"
        assert ran - began < 30


@pytest.mark.parametrize(
    ("opened", "never"),
    [
        (
            "import worker.app, worker.tasks; worker.app.traces_of(worker.app.Settings(), 'me')",
            ("opentelemetry", "google"),
        ),
        # FastAPI itself imports some of the SDK
        (
            "from service.main import create_app; create_app()",
            ("service.tracing", "opentelemetry.exporter", "google"),
        ),
    ],
    ids=["worker", "API"],
)
def test_off_nothing_of_it_is_imported(opened: str, never: tuple[str, ...]) -> None:
    program = f"{opened}; import sys; print([name for name in sys.modules if name.startswith({never})])"
    told = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "[]"
