"""Jobs as their owners see them: create, get, list, cancel, pause, resume.

Plain functions; the first argument is a `database.Store`, each is one transaction, each returns frozen records: a
`JobSummary` where many jobs or many calls are to be expected, since only `get` and `create` read the spec.
What a worker does with a job is in `leases.py`, what a run says of itself in `events.py`.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session, defer
from sqlalchemy.orm.interfaces import ORMOption

from alignment_core.spec import JobSpec
from alignment_core.spec.sources import label_of
from service.store import announcements, quotas, usage
from service.store.ancestry import beginning_of, held_parent, parent_of
from service.store.database import Store, now
from service.store.filters import filtered
from service.store.ids import new_id
from service.store.kinds import Kind
from service.store.models import (
    LONGEST_LABEL_KEY,
    LONGEST_LABEL_VALUE,
    LONGEST_NAME,
    Dataset,
    Job,
    JobPins,
    JobRetention,
    PromptSet,
)
from service.store.outcomes import outcomes
from service.store.queueing import add, hold_uploads, new_row
from service.store.records.base import JobError, Slice
from service.store.records.jobs import JobRecord, JobSummary, PauseKeeps, Progress
from service.store.retention_rules import Pins, Policy
from service.store.states import HELD, TERMINAL, InvalidTransition, JobState, Verb, after
from service.store.waiting import places

COMPOSED = (
    "metadata",
    "progress",
    "error",
    "queue",
    "outcome",
    "parent",
)  # fields of a record that are no column of that name

WITHOUT_SPEC = defer(Job.spec, raiseload=True)


def create(
    store: Store,
    *,
    project_id: str,
    spec: JobSpec,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    job_id: str | None = None,
    needs: Sequence[str] = (),
    needs_prompts: Sequence[str] = (),
    resume_from_checkpoint_id: str | None = None,
    estimate: Mapping[str, Any] | None = None,
    card_gib: float | None = None,
    check_only: bool = False,
    retention: Policy | None = None,
    pins: Pins | None = None,
) -> JobRecord:
    """Queue a job; the row holds the resolved spec. `DatasetGone` when one of the datasets in `needs`, or of the prompt sets
    in `needs_prompts`, is not there; `CheckpointGone` when the checkpoint is not that it begins from.

    Its run begins from `resume_from_checkpoint_id`, if that is given, in place of the model as it is; `check_only` ends it after what is
    tried before a run. `card_gib` is what each of its processes needs of a card, by which workers of its class take it. `retention` is a policy of its own in place of its project's,
    and `pins` is what is pinned as it is saved.

    `job_id` is the id that `idempotency.begin` set aside: creating it a second time returns the job that is there. The
    caller rings the bell after this returns, never before. Raises `QuotaExceeded` where the project may have no more.
    """
    _check_texts(name, metadata or {})
    resolved = spec.resolved()
    with store.write() as session:
        if job_id is not None and (existing := row_of(session, project_id, job_id)) is not None:
            return whole(session, existing)
        hold_uploads(session, Dataset, project_id, needs)
        hold_uploads(session, PromptSet, project_id, needs_prompts)
        parent = held_parent(session, project_id, beginning_of(resolved, resume_from_checkpoint_id))
        row = new_row(
            session,
            project_id,
            job_id or new_id("job"),
            resolved,
            method=resolved.method.type,
            model=label_of(resolved.model),
            name=name,
            metadata=metadata,
        )
        row.total_steps, row.card_gib = resolved.training.steps, card_gib
        row.estimate = None if estimate is None else dict(estimate)
        row.resume_from_checkpoint_id, row.check_only = resume_from_checkpoint_id, check_only
        for column, value in parent.items():
            setattr(row, column, value)
        add(session, row)
        if retention is not None:
            session.add(JobRetention(job_id=row.id, **vars(retention)))
        if pins is not None:
            session.add(JobPins(job_id=row.id, steps=list(pins.steps), result=pins.result))
        return whole(session, row)


def get(store: Store, project_id: str, job_id: str) -> JobRecord | None:
    """The job, or None when the project has no such job."""
    with store.read() as session:
        row = row_of(session, project_id, job_id)
        return None if row is None else whole(session, row)


def summary(store: Store, project_id: str, job_id: str) -> JobSummary | None:
    """The job without its spec, or None when the project has no such job."""
    with store.read() as session:
        row = row_of(session, project_id, job_id, WITHOUT_SPEC)
        return None if row is None else shown(session, [row])[0]


def list_jobs(
    store: Store,
    project_id: str,
    *,
    after_id: str | None = None,
    limit: int = 20,
    states: Collection[JobState] | None = None,
    method: str | None = None,
    model: str | None = None,
    metadata: Mapping[str, str] | None = None,
    kind: Kind = "job",
) -> Slice[JobSummary]:
    """The project's jobs, newest first, older than `after_id`; every filter that is given must hold. `kind` asks for other rows."""
    labels = dict(metadata or {})
    if any("\0" in text for text in (after_id, method, model, *labels, *labels.values()) if text is not None):
        return Slice((), has_more=False)  # PostgreSQL refuses to look for what it cannot hold
    query = filtered(
        project_id, after_id, limit + 1, kind=kind, states=states, method=method, model=model, labels=labels
    )
    with store.read() as session:
        rows = session.scalars(query.options(WITHOUT_SPEC)).all()
        return Slice(shown(session, rows[:limit]), has_more=len(rows) > limit)


def request_cancel(store: Store, project_id: str, job_id: str) -> JobSummary | None:
    """Cancel a waiting job at once, ask the worker of a running one to stop. None when there is no such job."""
    return _request(store, project_id, job_id, "cancel")


def request_pause(store: Store, project_id: str, job_id: str, keeps: PauseKeeps = "last_step") -> JobSummary | None:
    """Pause a queued job at once, ask the worker of a running one to leave. None when there is no such job.

    It saves its last step before it leaves, or `keeps` its last checkpoint and leaves at once: refused where there is none. A pause that saves
    may be made one that does not.
    """
    return _request(store, project_id, job_id, "pause", keeps)


def resume(store: Store, project_id: str, job_id: str) -> JobSummary | None:
    """Queue a paused job again, or one whose failure may pass: it goes on from its last checkpoint, with all its attempts.

    The caller rings the bell afterwards. None when there is no such job.
    """
    return _request(store, project_id, job_id, "resume")


def _request(
    store: Store, project_id: str, job_id: str, verb: Verb, keeps: PauseKeeps = "last_step"
) -> JobSummary | None:
    with store.write() as session:
        row = row_of(session, project_id, job_id, WITHOUT_SPEC, lock=True)
        if row is None:
            return None
        target = after(row.state, verb)
        if row.state == "failed":
            _refuse_final(row, verb)
        if verb == "pause" and target == "pausing":
            _keep(row, keeps)
        if target != row.state:
            if verb == "resume":
                quotas.admit_again(session, project_id, had_ended=row.state in TERMINAL)
            time = now(session)
            enter(session, row, target, time)
            row.error, row.cancel_requested = None, verb == "cancel"
            if verb == "resume":  # its owner let others go first: it joins the queue at its end
                row.queued_at, row.finished_at, row.num_lost, row.pause_keeps = time, None, 0, None
        return shown(session, [row])[0]


def _keep(row: Job, keeps: PauseKeeps) -> None:
    if keeps == "last_checkpoint" and row.latest_checkpoint_id is None:
        raise InvalidTransition(
            row.state, "pause", "there is no checkpoint that it could go on from: all would be lost"
        )
    if row.pause_keeps != "last_checkpoint":  # who was told to leave at once has left
        row.pause_keeps = keeps


def _refuse_final(row: Job, verb: Verb) -> None:
    error = JobError.model_validate(row.error)
    if not error.retryable:
        raise InvalidTransition(row.state, verb, f"the same would happen again ({error.code})")


def enter(session: Session, row: Job, state: JobState, time: datetime) -> None:
    """Put a locked row into `state`, with the times and the lease that belong to it. What was queued keeps its place."""
    if row.state in HELD and state not in HELD:
        usage.close_attempt(session, row, time, succeeded=state == "succeeded")
        quotas.count_time(session, row, time)
    row.state = state
    row.updated_at = time
    if state == "queued":
        row.phase = None
    if state in TERMINAL:
        row.finished_at = time
    if state in (*TERMINAL, "queued", "paused"):
        row.lease_expires_at = row.worker_id = row.eta_seconds = None
    if state in TERMINAL:
        announcements.ended(session, row, time)


def whole(session: Session, row: Job) -> JobRecord:
    return JobRecord(**dict(shown(session, [row])[0]), spec=row.spec, estimate=row.estimate)


def shown(session: Session, rows: Sequence[Job]) -> tuple[JobSummary, ...]:
    """What is shown of rows: of those that are queued their place in the queue, of those with a report what it says."""
    session.flush()
    came_of = outcomes(
        session, [row.id for row in rows if row.result_checkpoint_id is not None or row.state in TERMINAL]
    )
    place = places(session, [row for row in rows if row.state == "queued"])
    return tuple(
        summary_of(row).model_copy(update={"queue": place.get(row.id), "outcome": came_of.get(row.id)}) for row in rows
    )


def record_of(row: Job) -> JobRecord:
    """The frozen record of a row, without its place in the queue."""
    return JobRecord(**dict(summary_of(row)), spec=row.spec, estimate=row.estimate)


def summary_of(row: Job) -> JobSummary:
    """The same without the spec, which need not have been read."""
    values: dict[str, Any] = {field: getattr(row, field) for field in JobSummary.model_fields if field not in COMPOSED}
    return JobSummary(
        **values,
        metadata=row.labels,
        parent=parent_of(row),
        progress=Progress(
            step=row.step,
            total=row.total_steps,
            percent=round(100 * row.step / row.total_steps, 2) if row.total_steps else None,
            eta_seconds=row.eta_seconds,
        ),
        error=None if row.error is None else JobError.model_validate(row.error),
    )


def row_of(session: Session, project_id: str, job_id: str, *options: ORMOption, lock: bool = False) -> Job | None:
    query = sa.select(Job).where(Job.id == job_id, Job.project_id == project_id).options(*options)
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


def _check_texts(name: str | None, metadata: Mapping[str, str]) -> None:
    """What one of the two databases would refuse, both do."""
    if name is not None and len(name) > LONGEST_NAME:
        raise ValueError(f"name has {len(name)} characters; at most {LONGEST_NAME} are kept")
    if any(len(key) > LONGEST_LABEL_KEY or len(value) > LONGEST_LABEL_VALUE for key, value in metadata.items()):
        raise ValueError(f"metadata has keys of {LONGEST_LABEL_KEY} characters and values of {LONGEST_LABEL_VALUE}")
    if any("\0" in text for text in (name or "", *metadata.keys(), *metadata.values())):
        raise ValueError("name and metadata must not contain the NUL character")
