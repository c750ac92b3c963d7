"""Quotas of a project, looked at and counted in the transaction of what they limit, so that no two requests share the last one.

A transaction that a limit concerns locks the project's row first (on SQLite there is one writer anyway). Hours and months are
those of the clock in UTC: an hour's submits are counted in a row of their own, which no deletion of a job takes back.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.store.database import LIMITS, Store, now
from service.store.limits import Limits, QuotaExceeded, QuotaName, Standing
from service.store.models import (
    CandidateImage,
    Checkpoint,
    Dataset,
    Export,
    Job,
    ProcessTime,
    Project,
    PromptSet,
    Proof,
    ProofShard,
    Quota,
    Report,
    Sample,
    SubmitCount,
    TrackingFile,
    Upload,
)
from service.store.states import HELD, TERMINAL

HOUR = timedelta(hours=1)


def admit_job(session: Session, project_id: str) -> None:
    """Count a job that is about to be queued; raises `QuotaExceeded`, and then nothing is counted."""
    limits, time = _held_limits(session, project_id), now(session)
    _refuse(session, project_id, limits, time, ("gpu_hours", "bytes", "jobs", "submits"))
    if limits.submits is not None:
        _add(session, SubmitCount, {"project_id": project_id, "hour": _hour(time)}, 1)


def admit_bytes(session: Session, project_id: str, size_bytes: int = 0) -> None:
    """Raises `QuotaExceeded` where so many more bytes are more than the project may store."""
    limits, time = _held_limits(session, project_id), now(session)
    if limits.bytes is not None:
        found = _standing(session, project_id, "bytes", limits, time)
        if found.is_used_up or found.used + size_bytes > limits.bytes:
            raise QuotaExceeded(found)


def admit_again(session: Session, project_id: str, *, had_ended: bool) -> None:
    """Raises `QuotaExceeded` where a job may not go on: the month's GPU-hours are used up, or one that `had_ended` is one too many."""
    names: tuple[QuotaName, ...] = ("gpu_hours", "jobs") if had_ended else ("gpu_hours",)
    _refuse(session, project_id, _held_limits(session, project_id), now(session), names)


def count_time(session: Session, job: Job, end: datetime) -> None:
    """Add what an attempt took, which ends now, to its project's months. Each of its processes has a GPU to itself."""
    if job.attempt_started_at is not None:
        for month, seconds in by_month(job.attempt_started_at, end):
            key = {"project_id": job.project_id, "month": month}
            _add(session, ProcessTime, key, seconds * job.processes)
        job.attempt_started_at = None


def by_month(start: datetime, end: datetime) -> Iterator[tuple[datetime, float]]:
    """The months that an interval touches, each by its first moment, and the seconds of it in each."""
    while start < end:
        month = _month(start)
        stop = min(end, next_month(month))
        yield month, (stop - start).total_seconds()
        start = stop


def next_month(month: datetime) -> datetime:
    return _month(month + timedelta(days=31))


def standings(store: Store, project_id: str) -> tuple[Standing, ...]:
    """How much of each quota the project has used."""
    with store.read() as session:
        limits, time = _limits(session, project_id), now(session)
        names: tuple[QuotaName, ...] = ("jobs", "submits", "gpu_hours", "bytes")
        return tuple(_standing(session, project_id, name, limits, time) for name in names)


def submits_of(store: Store, project_id: str) -> Standing | None:
    """How much of the hour's submits is used; None where they have no limit."""
    with store.read() as session:
        limits = _limits(session, project_id)
        return None if limits.submits is None else _standing(session, project_id, "submits", limits, now(session))


def set_limits(store: Store, project_id: str, own: Mapping[str, Any]) -> None:
    """Give a project limits of its own; those that are not named stay. None is the server's, `NO_LIMIT` none at all."""
    with store.write() as session:
        row = session.get(Quota, project_id) or Quota(project_id=project_id)
        for name, value in own.items():
            setattr(row, name, value)
        session.add(row)


def _limits(session: Session, project_id: str) -> Limits:
    row, server = session.get(Quota, project_id), session.info.get(LIMITS, Limits())
    return server if row is None else server.replaced_by(vars(row))


def _held_limits(session: Session, project_id: str) -> Limits:
    """The limits of a project; where there are any, nobody else is admitted before this transaction ends."""
    limits = _limits(session, project_id)
    if limits != Limits():
        # not FOR UPDATE: whoever adds a row that refers to the project would wait too
        held = sa.select(Project.id).where(Project.id == project_id).with_for_update(key_share=True)
        session.execute(held)
    return limits


def _refuse(session: Session, project_id: str, limits: Limits, time: datetime, names: tuple[QuotaName, ...]) -> None:
    for name in names:
        if getattr(limits, name) is not None:
            found = _standing(session, project_id, name, limits, time)
            if found.is_used_up:
                raise QuotaExceeded(found)


def _standing(session: Session, project_id: str, name: QuotaName, limits: Limits, time: datetime) -> Standing:
    match name:
        case "jobs":
            unfinished = (Job.project_id == project_id, Job.state.not_in(TERMINAL))
            used, resets_at = session.scalar(sa.select(sa.func.count()).where(*unfinished)) or 0, None
        case "submits":
            counted = session.get(SubmitCount, (project_id, _hour(time)))
            used, resets_at = 0 if counted is None else counted.used, _hour(time) + HOUR
        case "gpu_hours":
            used, resets_at = _process_seconds(session, project_id, time) / 3600, next_month(time)
        case "bytes":
            used, resets_at = _bytes_of(session, project_id), None
    return Standing(name, getattr(limits, name), used, resets_at)


def _process_seconds(session: Session, project_id: str, time: datetime) -> float:
    """Of this month: attempts that have ended, and those that are running so far."""
    month = _month(time)
    ended = session.get(ProcessTime, (project_id, month))
    running = sa.select(Job.attempt_started_at, Job.processes).where(
        Job.project_id == project_id, Job.state.in_(HELD), Job.attempt_started_at.is_not(None)
    )
    so_far = (
        max(0.0, (time - max(start, month)).total_seconds()) * n
        for start, n in session.execute(running)
        if start is not None
    )
    return (0.0 if ended is None else ended.used) + sum(so_far)


def _bytes_of(session: Session, project_id: str) -> int:
    sizes = (
        (Dataset, sa.func.coalesce(Dataset.size_bytes, 0) + Dataset.encoded_bytes + Dataset.browsing_bytes),
        (PromptSet, PromptSet.size_bytes),
        (Upload, Upload.reserved_bytes),
        (Checkpoint, Checkpoint.size_bytes),
        (Export, Export.size_bytes),
        (Sample, Sample.size_bytes),
        (TrackingFile, TrackingFile.size_bytes),
        (Report, sa.func.coalesce(Report.page_size_bytes, 0)),
        (Proof, sa.func.coalesce(Proof.scores_size_bytes, 0)),
        (ProofShard, ProofShard.size_bytes),
        (CandidateImage, CandidateImage.size_bytes),
    )
    sums = (sa.select(sa.func.sum(size)).where(table.project_id == project_id) for table, size in sizes)
    return sum(int(session.scalar(one) or 0) for one in sums)


def _add(session: Session, table: type[SubmitCount | ProcessTime], key: Mapping[str, Any], used: float) -> None:
    """Count further, from nothing if need be."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    first = insert(table).values(**key, used=used)
    session.execute(first.on_conflict_do_update(index_elements=list(key), set_={"used": table.used + used}))


def _hour(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _month(time: datetime) -> datetime:
    return _hour(time).replace(day=1, hour=0)
