"""Sweeps: one job for each of several settings, at most so many at once.

Whoever comes by feeds a sweep: the request that creates it, a worker that has ended a job, every worker's periodic sweep. A trial is given the
id of its job first, under a lock on the sweep, and the job is queued under that id, which can be done twice and is done once. So nobody has to
live for a sweep to go on, and no two of them queue a trial twice.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, defer

from alignment_core.spec import JobSpec
from service.store import announcements, jobs
from service.store.ancestry import CheckpointGone, beginning_of, hold_checkpoints
from service.store.database import Store, now
from service.store.ids import new_id
from service.store.models import Dataset, Job, JobEvent, Project, PromptSet, Report, Sweep, SweepTrial
from service.store.queueing import DatasetGone, hold_uploads
from service.store.quotas import QuotaExceeded
from service.store.records.base import Slice
from service.store.records.sweeps import SweepRecord, TrialRecord
from service.store.states import TERMINAL, InvalidTransition
from service.store.traces import traced

LABEL = "sweep"  # of the metadata of a sweep's jobs
AT_REST = (*TERMINAL, "paused")  # no worker is needed for them

log = structlog.get_logger()


class TooMany(Exception):  # noqa: N818 - a state of affairs, read as one
    """The project has as many sweeps with jobs to queue as it may."""


def create(
    store: Store,
    *,
    project_id: str,
    trials: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]],
    search: Mapping[str, Any],
    at_once: int,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    sweep_id: str | None = None,
    most_open: int | None = None,
) -> SweepRecord:
    """Keep a sweep of `trials`, each what was set and what `jobs.create` needs for it; nothing is queued before `feed`.

    Raises `TooMany` where the project has `most_open` that are open, `DatasetGone` and `CheckpointGone` as `jobs.create` does.
    """
    with store.write() as session:
        if sweep_id is not None and (existing := session.get(Sweep, sweep_id)) is not None:
            return _record_of(existing)
        _refuse_more(session, project_id, most_open)
        _hold(session, project_id, [job for _, job in trials])
        row = Sweep(
            id=sweep_id or new_id("swp"),
            project_id=project_id,
            name=name,
            labels=dict(metadata or {}),
            search=dict(search),
            at_once=at_once,
            num_trials=len(trials),
            is_open=True,
            is_cancelled=False,
            created_at=now(session),
        )
        session.add(row)
        session.flush()
        session.add_all(
            SweepTrial(
                sweep_id=row.id,
                number=number,
                project_id=project_id,
                point=dict(point),
                job=dict(job),
                is_created=False,
            )
            for number, (point, job) in enumerate(trials)
        )
        return _record_of(row)


def _refuse_more(session: Session, project_id: str, most_open: int | None) -> None:
    # one after the other, so that they can be counted
    session.execute(sa.select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))
    there = session.scalar(sa.select(sa.func.count()).where(Sweep.project_id == project_id, Sweep.is_open)) or 0
    if most_open is not None and there >= most_open:
        raise TooMany


def _hold(session: Session, project_id: str, trials: Sequence[Mapping[str, Any]]) -> None:
    """Keep what any trial needs from being deleted before the sweep is there for all to see."""
    for table, key in ((Dataset, "needs"), (PromptSet, "needs_prompts")):
        hold_uploads(session, table, project_id, sorted({one for job in trials for one in job[key]}))
    begun = (beginning_of(JobSpec.model_validate(job["spec"]), None) for job in trials)
    hold_checkpoints(session, project_id, sorted({one.checkpoint_id for one in begun if one is not None}))


def feed_all(store: Store, ring: Callable[[str], None]) -> None:
    """Queue what open sweeps have room for; one of which this cannot be done keeps no other from it."""
    with store.read() as session:
        open_ones = session.scalars(sa.select(Sweep.id).where(Sweep.is_open).order_by(Sweep.id)).all()
    for sweep_id in open_ones:
        feed_now_or_later(store, sweep_id, ring)


def feed_now_or_later(store: Store, sweep_id: str, ring: Callable[[str], None]) -> None:
    """`feed`, where a failure is nobody's: the sweep is kept, whoever feeds it next goes on, and it is not to be created twice."""
    try:
        feed(store, sweep_id, ring)
    except Exception:
        log.exception("sweep_not_fed", sweep_id=sweep_id)


def feed(store: Store, sweep_id: str, ring: Callable[[str], None]) -> None:
    """Queue as many jobs as the sweep has room for, and ring for each."""
    for trial in _taken(store, sweep_id):
        try:
            job = _queued(store, trial)
        except QuotaExceeded:
            return  # there is room for it later
        except (DatasetGone, CheckpointGone) as error:
            _settle(store, trial, f"{error.args[0]} does not exist any more")
        except IntegrityError:
            continue  # somebody else has just queued it
        else:
            if _settle(store, trial, None):
                ring(job)
            else:  # it was cancelled meanwhile, by somebody who did not see this job yet
                _cancel(store, trial.project_id, job)


def _taken(store: Store, sweep_id: str) -> list[SweepTrial]:
    """Trials that are to be queued now, each with the id of its job; others may take the same."""
    with store.write() as session:
        sweep = session.scalars(sa.select(Sweep).where(Sweep.id == sweep_id).with_for_update()).one_or_none()
        if sweep is None or not sweep.is_open:
            return []
        mine = sa.select(SweepTrial).where(SweepTrial.sweep_id == sweep_id, SweepTrial.error.is_(None))
        at_work = mine.outerjoin(Job, Job.id == SweepTrial.job_id).where(
            SweepTrial.job_id.is_not(None), sa.or_(~SweepTrial.is_created, Job.state.not_in(AT_REST))
        )
        busy = session.scalars(at_work).all()
        waiting = mine.where(SweepTrial.job_id.is_(None), ~SweepTrial.is_created).order_by(SweepTrial.number)
        fresh = session.scalars(waiting.limit(max(0, sweep.at_once - len(busy)))).all()
        for trial in fresh:
            trial.job_id = new_id("job")
        taken = [*(trial for trial in busy if not trial.is_created), *fresh]
        if not taken and session.scalars(waiting.limit(1)).one_or_none() is None:
            sweep.is_open = False
            announcements.sweep_may_have_ended(session, sweep, now(session))
        session.flush()
        session.expunge_all()
        return taken


def _queued(store: Store, trial: SweepTrial) -> str:
    job = trial.job
    with traced(trial.traceparent):  # a worker may be who queues it
        created = jobs.create(
            store,
            project_id=trial.project_id,
            spec=JobSpec.model_validate(job["spec"]),
            estimate=job["estimate"],
            card_gib=job["card_gib"],
            name=job["name"],
            metadata={**job["metadata"], LABEL: trial.sweep_id},
            job_id=trial.job_id,
            needs=job["needs"],
            needs_prompts=job["needs_prompts"],
        )
    return created.id


def _settle(store: Store, trial: SweepTrial, error: str | None) -> bool:
    """Note that the trial is queued, or why it never will be; whether its sweep goes on."""
    with store.write() as session:
        sweep = session.scalars(sa.select(Sweep).where(Sweep.id == trial.sweep_id).with_for_update()).one_or_none()
        session.execute(
            sa.update(SweepTrial)
            .where(SweepTrial.sweep_id == trial.sweep_id, SweepTrial.number == trial.number)
            .values(is_created=True, error=error)
        )
        return sweep is not None and not sweep.is_cancelled


def get(store: Store, project_id: str, sweep_id: str) -> SweepRecord | None:
    with store.read() as session:
        row = session.scalars(
            sa.select(Sweep).where(Sweep.id == sweep_id, Sweep.project_id == project_id)
        ).one_or_none()
        return None if row is None else _record_of(row)


def list_sweeps(store: Store, project_id: str, *, after_id: str | None, limit: int) -> Slice[SweepRecord]:
    """The project's sweeps, newest first."""
    query = sa.select(Sweep).where(Sweep.project_id == project_id).order_by(Sweep.id.desc()).limit(limit + 1)
    if after_id is not None:
        query = query.where(Sweep.id < after_id)
    with store.read() as session:
        rows = session.scalars(query).all()
        return Slice(tuple(map(_record_of, rows[:limit])), has_more=len(rows) > limit)


def trials_of(store: Store, sweep_id: str) -> list[TrialRecord]:
    """Every trial with what has become of its job: its report, and the guard that ended its training."""
    query = (
        sa.select(SweepTrial, Job, Report.report)
        .outerjoin(Job, Job.id == SweepTrial.job_id)
        .outerjoin(Report, Report.job_id == SweepTrial.job_id)
        .where(SweepTrial.sweep_id == sweep_id)
        .options(defer(Job.spec), defer(SweepTrial.job))  # each may hold a hundred thousand prompts
        .order_by(SweepTrial.number, Report.step)  # of several reports of a job the last counts
    )
    chosen = (
        sa.select(JobEvent.job_id, JobEvent.data)
        .join(SweepTrial, SweepTrial.job_id == JobEvent.job_id)
        .where(SweepTrial.sweep_id == sweep_id, JobEvent.type == "result_selected")
        .order_by(JobEvent.seq)
    )
    with store.read() as session:
        stopped = {row.job_id: row.data.get("stopped_by") for row in session.execute(chosen)}
        found = {
            trial.number: TrialRecord(
                number=trial.number,
                point=trial.point,
                job_id=None if job is None else job.id,
                state=_state_of(trial, job),
                error=trial.error or (None if job is None or job.error is None else job.error["message"]),
                stopped_by=stopped.get(trial.job_id),
                report=report,
            )
            for trial, job, report in session.execute(query)
        }
        return list(found.values())


def _state_of(trial: SweepTrial, job: Job | None) -> str:
    if trial.error is not None:
        return "failed"
    if job is not None:
        return job.state
    return "deleted" if trial.is_created else "waiting"


def request_cancel(store: Store, project_id: str, sweep_id: str) -> SweepRecord | None:
    """Queue nothing more, and cancel the jobs that have not ended. None when there is no such sweep."""
    with store.write() as session:
        query = sa.select(Sweep).where(Sweep.id == sweep_id, Sweep.project_id == project_id)
        row = session.scalars(query.with_for_update()).one_or_none()
        if row is None:
            return None
        was_open = row.is_open
        if was_open:
            row.is_open, row.is_cancelled = False, True
        live = (
            sa.select(Job.id)
            .join(SweepTrial, SweepTrial.job_id == Job.id)
            .where(SweepTrial.sweep_id == sweep_id, Job.state.not_in(TERMINAL))
        )
        found = session.scalars(live).all()
        row.is_cancelled = row.is_cancelled or bool(found)
        if was_open:
            announcements.sweep_may_have_ended(session, row, now(session))
        record = _record_of(row)
    for job_id in found:
        _cancel(store, project_id, job_id)
    return record


def _cancel(store: Store, project_id: str, job_id: str) -> None:
    """One that has ended since it was found need not be cancelled, and keeps no other from it."""
    with suppress(InvalidTransition):
        jobs.request_cancel(store, project_id, job_id)


def _record_of(row: Sweep) -> SweepRecord:
    return SweepRecord(
        id=row.id,
        name=row.name,
        metadata=row.labels,
        search=row.search,
        at_once=row.at_once,
        num_trials=row.num_trials,
        is_open=row.is_open,
        is_cancelled=row.is_cancelled,
        created_at=row.created_at,
    )
