"""Where the time of jobs went: seconds by phase of every attempt, lost ones too, from what their runs said and when.

An attempt becomes a row when it ends, by which a project's sums are made; that of an attempt that goes on is made when it is asked for.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.costs.calibration import MOST
from service.store.database import Store, now
from service.store.ids import new_id
from service.store.models import AttemptUsage, Checkpoint, Export, Job, JobEvent, Report, Sample, TrackingFile
from service.store.usage_sums import sums_of

MARKS = ("run_started", "phase_changed", "run_completed")
ENDED = "uploading"  # what is left once the run has ended: its last files are stored
DIVIDED = "phase_divided"
STARTED = ("run_started", "proof_started")  # which say what is computed on
_TOLD = (*MARKS, *STARTED, DIVIDED, "throughput_measured", "start_checked")


@dataclass(frozen=True)
class Usage:
    """Of a job, or of a project's attempts that ended within a time."""

    num_attempts: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    process_seconds: float = 0.0
    gpu_seconds: float = 0.0
    peak_device_gib: float | None = None
    peak_host_gib: float | None = None
    stored_bytes: int = 0


def close_attempt(session: Session, job: Job, time: datetime, *, succeeded: bool) -> None:
    """Keep what the attempt took that ends now; nothing where none is under way."""
    if job.attempt_started_at is None:
        return
    session.flush()  # what the run said last is read back
    row = _usage_of_attempt(session, job, job.attempt_started_at, time)
    estimate = job.estimate or {}
    expected = ((estimate.get("duration") or {}).get("total") or {}).get("expected")
    took = (time - job.attempt_started_at).total_seconds()
    if succeeded and expected and took > 0 and job.attempt == 1 and not job.check_only:
        row.shape = (estimate.get("calibration") or {}).get("shape")
        row.over_estimate = took / expected
    session.add(row)


def ratios_of(store: Store, shape: str) -> list[float]:
    """How long the latest jobs of a shape took over what was expected, in a single attempt."""
    query = sa.select(AttemptUsage.over_estimate).where(AttemptUsage.shape == shape)
    with store.read() as session:
        latest = session.scalars(query.order_by(AttemptUsage.ended_at.desc()).limit(MOST))
        return [one for one in latest if one is not None]


def of_job(store: Store, project_id: str, job_id: str) -> Usage:
    """All attempts at a job, with the one that goes on, and the time in which it waits just now."""
    with store.read() as session:
        job = session.scalars(sa.select(Job).where(Job.id == job_id, Job.project_id == project_id)).one_or_none()
        if job is None:
            return Usage()
        query = sa.select(AttemptUsage).where(AttemptUsage.job_id == job_id).order_by(AttemptUsage.attempt)
        attempts, time = list(session.scalars(query)), now(session)
        if job.attempt_started_at is not None:
            attempts.append(_usage_of_attempt(session, job, job.attempt_started_at, time))
        total = _sum(attempts, _stored_bytes(session, lambda table: table.job_id == job_id))
        if job.state == "queued":
            waits = (time - _queued_since(session, job)).total_seconds()
            total.seconds["queued"] = round(total.seconds.get("queued", 0.0) + max(0.0, waits), 3)
        return total


def of_project(store: Store, project_id: str, since: datetime | None, until: datetime | None) -> Usage:
    """The attempts that ended at `since` or later and before `until`: times side by side add up. Bytes are those of now."""
    which = [AttemptUsage.project_id == project_id]
    if since is not None:
        which.append(AttemptUsage.ended_at >= since)
    if until is not None:
        which.append(AttemptUsage.ended_at < until)
    with store.read() as session:
        sums = asdict(sums_of(session, which))
        return Usage(**sums, stored_bytes=_stored_bytes(session, lambda table: table.project_id == project_id))


def _usage_of_attempt(session: Session, job: Job, claimed_at: datetime, time: datetime) -> AttemptUsage:
    query = sa.select(JobEvent.type, JobEvent.data, JobEvent.time).where(
        JobEvent.job_id == job.id, JobEvent.attempt == job.attempt, JobEvent.type.in_(_TOLD)
    )
    told = session.execute(query.order_by(JobEvent.seq)).all()
    queued = max(0.0, (claimed_at - _queued_since(session, job)).total_seconds())
    return AttemptUsage(
        id=new_id("att"),
        project_id=job.project_id,
        job_id=job.id,
        attempt=job.attempt,
        processes=job.processes,
        device=next((one.data.get("device") for one in told if one.type in STARTED), None),
        seconds={"queued": round(queued, 3), **_seconds([(*one,) for one in told], claimed_at, time)},
        peak_device_gib=_peak(told, "peak_device_gib"),
        peak_host_gib=_peak(told, "peak_host_gib"),
        claimed_at=claimed_at,
        ended_at=time,
    )


def _seconds(told: Sequence[tuple[str, dict[str, Any], datetime]], start: datetime, end: datetime) -> dict[str, float]:
    """Seconds in each phase from the claim to the end, each of them once, though a training process's clock may be off or set back."""
    marks = [(_phase_from(kind, data), time) for kind, data, time in told if kind in MARKS]
    found: dict[str, float] = {}
    counted_to = start
    for (phase, _), (_, until) in pairwise([("starting", start), *marks, ("", end)]):
        ends_at = max(counted_to, min(until, end))
        found[phase] = round(found.get(phase, 0.0) + (ends_at - counted_to).total_seconds(), 3)
        counted_to = ends_at
    return _divided(found, [data for kind, data, _ in told if kind == DIVIDED])


def _divided(found: dict[str, float], told: Iterable[dict[str, Any]]) -> dict[str, float]:
    """The same sum, with what a phase did of other work under the work's name; a phase never gives more than it lasted."""
    seconds = dict(found)
    for division in told:
        phase = division["phase"]
        for part, lasted in division["seconds"].items():
            moved = min(max(0.0, lasted), seconds.get(phase, 0.0))
            if moved > 0:
                seconds[phase] = round(seconds[phase] - moved, 3)
                seconds[part] = round(seconds.get(part, 0.0) + moved, 3)
    return seconds


def _phase_from(kind: str, data: dict[str, Any]) -> str:
    if kind == "run_completed":
        return ENDED
    return data.get("phase") or "loading"


def _peak(told: Iterable[Any], name: str) -> float | None:
    figures = [{**one.data, **one.data.get("throughput", {})}.get(name) for one in told]
    return max((one for one in figures if one is not None), default=None)


def _queued_since(session: Session, job: Job) -> datetime:
    """Since when the job has waited for its present attempt: a worker that gives it back leaves `queued_at` as it was."""
    last = session.scalar(sa.select(sa.func.max(AttemptUsage.ended_at)).where(AttemptUsage.job_id == job.id))
    joined = job.queued_at or job.created_at
    return joined if last is None else max(joined, last)


def _sum(attempts: Iterable[AttemptUsage], stored_bytes: int) -> Usage:
    num, seconds = 0, dict[str, float]()
    process_seconds = gpu_seconds = 0.0
    peaks_of_device, peaks_of_host = list[float](), list[float]()
    for one in attempts:
        num += 1
        for phase, lasted in one.seconds.items():
            seconds[phase] = round(seconds.get(phase, 0.0) + lasted, 3)
        held = (one.ended_at - one.claimed_at).total_seconds() * one.processes
        process_seconds += held
        gpu_seconds += held if one.device == "cuda" else 0.0
        peaks_of_device += [] if one.peak_device_gib is None else [one.peak_device_gib]
        peaks_of_host += [] if one.peak_host_gib is None else [one.peak_host_gib]
    return Usage(
        num_attempts=num,
        seconds=seconds,
        process_seconds=round(process_seconds, 3),
        gpu_seconds=round(gpu_seconds, 3),
        peak_device_gib=max(peaks_of_device, default=None),
        peak_host_gib=max(peaks_of_host, default=None),
        stored_bytes=stored_bytes,
    )


def _stored_bytes(session: Session, which: Callable[[Any], sa.ColumnElement[bool]]) -> int:
    """Of checkpoints, their exports, pictures, report pages and TensorBoard files that are there now, in rows that `which` picks by an
    index of their own: jobs may be a million, most of which keep nothing."""
    sizes = (
        Checkpoint.size_bytes,
        Export.size_bytes,
        Sample.size_bytes,
        Report.page_size_bytes,
        TrackingFile.size_bytes,
    )
    found = [session.scalar(sa.select(sa.func.sum(size)).where(which(size.class_))) for size in sizes]
    return int(sum(one or 0 for one in found))
