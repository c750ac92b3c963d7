"""Retention: policies of projects and jobs, pins, and the sweep that lets go what `retention_rules.py` says."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from service.store import audit
from service.store.audit import Deed
from service.store.database import Store, now
from service.store.deletion import remove_checkpoint
from service.store.models import Alias, Checkpoint, Job, JobPins, JobRetention, ProjectRetention
from service.store.retention_rules import Candidate, Need, Pins, Policy, Verdict, verdicts
from service.store.states import TERMINAL
from service.store.trials_to_come import sweeps_naming

JOBS_AT_ONCE = 100

log = structlog.get_logger()


def policy_of_project(store: Store, project_id: str) -> Policy:
    with store.read() as session:
        return _policy(session.get(ProjectRetention, project_id)) or Policy()


def set_project_policy(store: Store, project_id: str, policy: Policy) -> None:
    with store.write() as session:
        session.merge(ProjectRetention(project_id=project_id, **vars(policy)))


def set_job_policy(store: Store, project_id: str, job_id: str, policy: Policy | None) -> bool:
    """Give a job a policy of its own, or with None its project's again; False where the project has no such job."""
    with store.write() as session:
        held = sa.select(Job.id).where(Job.id == job_id, Job.project_id == project_id).with_for_update()
        if session.scalars(held).one_or_none() is None:
            return False
        if policy is None:
            session.execute(sa.delete(JobRetention).where(JobRetention.job_id == job_id))
        else:
            session.merge(JobRetention(job_id=job_id, **vars(policy)))
        return True


def pin(store: Store, project_id: str, checkpoint_id: str, *, is_pinned: bool) -> bool:
    """Keep a checkpoint from every policy and every deletion, or no longer; False where there is no such checkpoint."""
    wanted = (Checkpoint.id == checkpoint_id, Checkpoint.project_id == project_id)
    with store.write() as session:
        changed = sa.update(Checkpoint).where(*wanted).values(is_pinned=is_pinned).returning(Checkpoint.id)
        return session.scalars(changed).one_or_none() is not None


def pins_of(store: Store, job_id: str) -> Pins:
    """What the job has pinned as it is saved."""
    with store.read() as session:
        row = session.get(JobPins, job_id)
        return Pins() if row is None else Pins(tuple(row.steps), row.result)


def outlook(store: Store, project_id: str, job_id: str) -> tuple[Policy, bool, list[Verdict]] | None:
    """The policy that a job is under, whether it is its own, and what the sweep would do now; None for no such job."""
    with store.read() as session:
        job = session.scalars(sa.select(Job).where(Job.id == job_id, Job.project_id == project_id)).one_or_none()
        if job is None:
            return None
        own = _policy(session.get(JobRetention, job_id))
        policy = own or _policy(session.get(ProjectRetention, project_id)) or Policy()
        return policy, own is not None, _verdicts(session, job, _checkpoints(session, job_id), policy, now(session))


def sweep(store: Store) -> int:
    """Let go what the policies of all projects let go; how many checkpoints went. Their objects follow (`removals.py`)."""
    gone, after_id = 0, ""
    while job_ids := _jobs_under_a_policy(store, after_id):
        for job_id in job_ids:
            gone += _sweep_job(store, job_id)
        after_id = job_ids[-1]
    return gone


def _jobs_under_a_policy(store: Store, after_id: str) -> Sequence[str]:
    """Ids of ended jobs with checkpoints whose own or whose project's policy may let something go."""
    projects = sa.select(ProjectRetention.project_id).where(_lets_go(ProjectRetention))
    own = sa.select(JobRetention.job_id).where(_lets_go(JobRetention))
    query = sa.select(Job.id).where(
        Job.id > after_id,
        Job.state.in_(TERMINAL),
        sa.or_(Job.id.in_(own), Job.project_id.in_(projects)),
        sa.exists().where(Checkpoint.job_id == Job.id),
    )
    with store.read() as session:
        return session.scalars(query.order_by(Job.id).limit(JOBS_AT_ONCE)).all()


def _lets_go(table: type[ProjectRetention | JobRetention]) -> sa.ColumnElement[bool]:
    return sa.or_(table.keep_last.is_not(None), table.ttl_days.is_not(None), table.unfinished_days.is_not(None))


def _sweep_job(store: Store, job_id: str) -> int:
    with store.write() as session:
        held = sa.select(Job).where(Job.id == job_id).with_for_update(skip_locked=True)
        if (job := session.scalars(held).one_or_none()) is None:
            return 0
        policy = _policy(session.get(JobRetention, job_id)) or _policy(session.get(ProjectRetention, job.project_id))
        # held, so that a fork that is being made from one of them is waited for and then seen
        rows, time = _checkpoints(session, job_id, lock=True), now(session)
        found = _verdicts(session, job, rows, policy or Policy(), time)
        going = {verdict.id: verdict.reason for verdict in found if verdict.goes}
        for row in rows:
            if row.id in going:
                remove_checkpoint(session, job, row)
                log.info("checkpoint_let_go", job_id=job_id, checkpoint_id=row.id, reason=going[row.id])
        if going:
            deed = Deed("retention", object_ids=[job_id, *going], project_id=job.project_id)
            audit.add(session, deed, "done", None, time)
        return len(going)


def _verdicts(session: Session, job: Job, rows: Sequence[Checkpoint], policy: Policy, time: datetime) -> list[Verdict]:
    needs = _needs(session, job.project_id, [row.id for row in rows])
    result = job.result_checkpoint_id or job.latest_checkpoint_id
    candidates = [
        Candidate(
            id=row.id,
            step=row.step,
            created_at=row.created_at,
            is_best=row.is_best,
            is_result=row.id == result,
            is_pinned=row.is_pinned,
            needed_by=needs.get(row.id, frozenset()),
        )
        for row in rows
    ]
    may_resume = job.state == "failed" and bool((job.error or {}).get("retryable"))
    return verdicts(
        candidates,
        policy,
        has_ended=job.state in TERMINAL,
        may_resume=may_resume,
        time=time,
        unfinished_since=job.finished_at if job.state in ("failed", "cancelled") else None,
    )


def _needs(session: Session, project_id: str, checkpoint_ids: Sequence[str]) -> dict[str, frozenset[Need]]:
    """Who outside of their job needs the checkpoints: a name that points at one, and jobs that were forked from one, ended or not."""
    parents = sa.select(Job.parent_checkpoint_id).where(Job.parent_checkpoint_id.in_(checkpoint_ids))
    begun = sa.select(Job.resume_from_checkpoint_id).where(Job.resume_from_checkpoint_id.in_(checkpoint_ids))
    forked = {*session.scalars(parents), *session.scalars(begun), *_named_in_specs(session, project_id, checkpoint_ids)}
    named = set(session.scalars(sa.select(Alias.checkpoint_id).where(Alias.checkpoint_id.in_(checkpoint_ids))))
    needs: dict[str, set[Need]] = defaultdict(set)
    for one in forked - {None}:
        needs[one].add("fork")
    for one in named:
        needs[one].add("champion")
    return {one: frozenset(why) for one, why in needs.items()}


def _named_in_specs(session: Session, project_id: str, checkpoint_ids: Iterable[str]) -> Iterable[str]:
    """Those that the spec of the project's job names which has not ended, or which a sweep is yet to queue. An id is too long to occur by chance."""
    unfinished = sa.and_(Job.project_id == project_id, Job.state.not_in(TERMINAL))
    for one in checkpoint_ids:
        named = sa.select(Job.id).where(unfinished, sa.cast(Job.spec, sa.Text).contains(one, autoescape=True))
        if session.scalars(named.limit(1)).first() is not None or sweeps_naming(session, project_id, one, 1):
            yield one


def _checkpoints(session: Session, job_id: str, *, lock: bool = False) -> Sequence[Checkpoint]:
    query = sa.select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step)
    return session.scalars(query.with_for_update() if lock else query).all()


def _policy(row: ProjectRetention | JobRetention | None) -> Policy | None:
    return None if row is None else Policy(row.keep_last, row.keep_best, row.ttl_days, row.unfinished_days)
