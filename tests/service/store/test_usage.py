"""Where the time of jobs went: by phase, through retries and lost workers, and summed up for a project."""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from alignment_core.events import (
    Event,
    PhaseChanged,
    PhaseDivided,
    ProofStarted,
    RunCompleted,
    RunStarted,
    Throughput,
    ThroughputMeasured,
)
from service.store import jobs, leases, usage
from service.store.database import Store
from service.store.events import record_events
from service.store.models import AttemptUsage, Job
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.jobs import JobRecord

NewJob = Callable[[], JobRecord]
START = datetime(2026, 11, 20, 9, tzinfo=UTC)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], datetime]:
    """Set the store's clock to so many seconds after the start."""

    def set_clock(seconds: float) -> datetime:
        time = START + timedelta(seconds=seconds)
        for module in ("queueing", "jobs", "leases", "usage", "events", "quotas", "lease_clock"):
            monkeypatch.setattr(f"service.store.{module}.now", lambda _: time)
        return time

    set_clock(0)
    return set_clock


def said(seconds: float, what: str, **fields: object) -> Event:
    time = START + timedelta(seconds=seconds)
    match what:
        case "run_started":
            return RunStarted(
                time=time, spec_sha256="0", learning_rate=1, examples_per_step=1, total_steps=9, device="cuda",
                precision="bf16", versions={},
            )  # fmt: skip
        case "proof_started":
            return ProofStarted(
                time=time, spec={}, spec_sha256="0", num_images=4, num_there=0, device="cuda", card="a card", precision="bf16", versions={},
            )  # fmt: skip
        case "run_completed":
            return RunCompleted(time=time, step=9)
        case "pace":
            pace = Throughput(
                num_steps=1, examples_per_second=1, tflops_per_second=None, mfu=None, peak_device_gib=float(str(fields["device"])),
                peak_host_gib=2.5, waiting_share=0, saving_share=0,
            )  # fmt: skip
            return ThroughputMeasured(time=time, step=1, throughput=pace)
        case "divided":
            return PhaseDivided.model_validate({"time": time, "phase": fields["phase"], "seconds": fields["parts"]})
        case phase:
            return PhaseChanged.model_validate({"time": time, "phase": phase})


def lose(store: Store, job_id: str) -> None:
    """Let the lease end, and have a sweep find it."""
    with store.write() as session:
        past = sa.literal(START - timedelta(days=9), Job.lease_expires_at.type)
        session.execute(sa.update(Job).where(Job.id == job_id).values(lease_expires_at=past))
    assert leases.requeue_lost(store, 3).requeued == (job_id,)


def test_every_attempt_counts_and_so_does_the_time_between_them(
    store: Store, new_job: NewJob, at: Callable[[float], datetime]
) -> None:
    job = new_job()
    at(10)
    assert usage.of_job(store, PROJECT, job.id).seconds == {"queued": 10}
    leases.claim(store, job.id, "w", 60)
    record_events(
        store,
        job.id,
        1,
        [said(14, "run_started"), said(20, "caching"), said(30, "training"), said(35, "pace", device=7)],
    )
    at(70)
    lose(store, job.id)
    at(75)
    leases.claim(store, job.id, "w", 60)
    begun = [said(77, "run_started"), said(78, "training"), said(90, "saving"), said(92, "training")]
    record_events(store, job.id, 2, [*begun, said(93, "pace", device=6)])
    at(95)
    running = usage.of_job(store, PROJECT, job.id)
    assert running.seconds["training"] == 40 + 12 + 3
    record_events(store, job.id, 2, [said(97, "saving"), said(99, "run_completed")])
    at(100)
    leases.finish(store, job.id, 2, "succeeded")
    at(500)
    found = usage.of_job(store, PROJECT, job.id)
    expected = {
        "queued": 10 + 5, "starting": 4 + 2, "loading": 6 + 1, "caching": 10, "training": 40 + 12 + 5, "saving": 2 + 2,
        "uploading": 1,
    }  # fmt: skip
    assert found.seconds == pytest.approx(expected)
    assert sum(found.seconds.values()) == pytest.approx(100), "all of its life, once"
    assert found.process_seconds == found.gpu_seconds == pytest.approx(60 + 25)
    assert (found.num_attempts, found.peak_device_gib, found.peak_host_gib) == (2, 7, 2.5)


def test_what_a_phase_did_of_other_work_counts_as_that_work_of_every_attempt(
    store: Store, new_job: NewJob, at: Callable[[float], datetime]
) -> None:
    job = new_job()
    leases.claim(store, job.id, "w", 60)
    drawn = {"sampling": 12.0, "scoring": 3.5}
    stored = said(9, "divided", phase="starting", parts={"waiting_for_storage": 6.0})
    first = [
        stored,
        said(10, "run_started"),
        said(20, "training"),
        said(50, "divided", phase="training", parts=drawn),
    ]
    record_events(store, job.id, 1, first)
    at(60)
    lose(store, job.id)
    leases.claim(store, job.id, "w", 60)
    second = [said(60, "run_started"), said(60, "training"), said(80, "divided", phase="training", parts=drawn)]
    report = [
        said(85, "sampling"),
        said(95, "divided", phase="sampling", parts={"scoring": 4.0}),
        said(95, "evaluating"),
    ]
    record_events(store, job.id, 2, [*second, *report, said(96, "run_completed")])
    late = said(97, "divided", phase="uploading", parts={"waiting_for_storage": 99.0})  # most of it beside the training
    record_events(store, job.id, 2, [late])
    at(100)
    leases.finish(store, job.id, 2, "succeeded")
    found = usage.of_job(store, PROJECT, job.id).seconds
    assert found == pytest.approx({
        "queued": 0, "starting": 4, "waiting_for_storage": 6 + 4, "loading": 10, "training": 40 - 15.5 + 25 - 15.5,
        "sampling": 12 + 12 + 10 - 4, "scoring": 3.5 + 3.5 + 4, "evaluating": 1, "uploading": 0,
    })  # fmt: skip
    assert sum(found.values()) == pytest.approx(100), "all of its life, once"


def test_each_process_counts_and_a_paused_job_waits_for_nobody(
    store: Store, new_job: NewJob, at: Callable[[float], datetime]
) -> None:
    job = new_job()
    with store.write() as session:
        session.execute(sa.update(Job).where(Job.id == job.id).values(processes=4))
    leases.claim(store, job.id, "w", 60)
    at(10)
    jobs.request_pause(store, PROJECT, job.id)
    leases.finish(store, job.id, 1, "stopped")
    at(1000)
    jobs.resume(store, PROJECT, job.id)
    at(1003)
    leases.claim(store, job.id, "w", 60)
    at(1004)
    leases.give_back(store, job.id, 2)
    found = usage.of_job(store, PROJECT, job.id)
    assert found.seconds == {"queued": 3, "starting": 11}
    assert (found.process_seconds, found.gpu_seconds) == (44, 0), "no run has said that it holds a GPU"


def test_an_evaluation_tells_drawing_from_judging_and_holds_the_gpu_that_it_named(
    store: Store, new_job: NewJob, at: Callable[[float], datetime]
) -> None:
    job = new_job()
    leases.claim(store, job.id, "w", 60)
    parts = [
        event
        for start in (10, 40)
        for event in (said(start, "sampling"), said(start + 20, "divided", phase="sampling", parts={"scoring": 8}))
    ]
    record_events(store, job.id, 1, [said(2, "proof_started"), said(4, "loading"), *parts, said(70, "evaluating")])
    at(75)
    leases.finish(store, job.id, 1, "succeeded")
    found = usage.of_job(store, PROJECT, job.id)
    assert found.seconds == {
        "queued": 0, "starting": 4, "loading": 6, "sampling": 60 - 16, "scoring": 16, "evaluating": 5,
    }  # fmt: skip
    assert found.gpu_seconds == 75


def test_times_that_lie_side_by_side_add_up_and_deleted_jobs_stay_counted(
    store: Store, new_job: NewJob, at: Callable[[float], datetime]
) -> None:
    first, second = new_job(), new_job()
    for job, end in ((first, 20), (second, 50)):
        leases.claim(store, job.id, "w", 60)
        time = at(end)
        leases.finish(store, job.id, 1, "succeeded")
    early, late = usage.of_project(store, PROJECT, None, time), usage.of_project(store, PROJECT, time, None)
    both = usage.of_project(store, PROJECT, None, None)
    assert (early.num_attempts, late.num_attempts, both.num_attempts) == (1, 1, 2)
    assert both.process_seconds == early.process_seconds + late.process_seconds == 20 + 30
    with store.write() as session:
        session.execute(sa.delete(Job).where(Job.id == first.id))
    assert usage.of_project(store, PROJECT, None, None).process_seconds == 50
    assert usage.of_project(store, "another", None, None).num_attempts == 0


def test_the_databases_sums_are_those_of_adding_attempts_up_one_by_one(store: Store) -> None:
    draw = random.Random(7)

    def attempt(number: int) -> AttemptUsage:
        claimed_at = START + timedelta(microseconds=draw.randrange(10**12))
        phases = ["queued", "starting", *draw.sample(["training", "saving", "a phase to come"], draw.randrange(4))]
        return AttemptUsage(
            id=f"att_{number}",
            project_id=PROJECT,
            attempt=1,
            processes=draw.choice([1, 2, 64]),
            device=draw.choice([None, "cpu", "cuda"]),
            seconds={phase: draw.choice([0, 1, draw.randrange(10**9) / 1000]) for phase in phases},
            peak_device_gib=draw.choice([None, draw.random()]),
            peak_host_gib=None,
            claimed_at=claimed_at,
            ended_at=claimed_at + timedelta(microseconds=draw.choice([0, 10**6, draw.randrange(10**11)])),
        )

    rows = [attempt(number) for number in range(500)]
    expected = usage._sum(rows, 0)
    half = sorted(row.ended_at for row in rows)[250]
    later = usage._sum([row for row in rows if row.ended_at >= half], 0)
    with store.write() as session:
        session.add_all(rows)
    found = usage.of_project(store, PROJECT, None, None)
    assert found == expected
    assert usage.of_project(store, PROJECT, half, None) == later
    assert [*found.seconds][:2] == ["queued", "starting"], "in the order of a job's life"
    assert usage.of_project(store, PROJECT, half, half) == usage.Usage()
