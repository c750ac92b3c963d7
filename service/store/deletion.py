"""Deleting datasets, prompt sets, jobs and checkpoints, with everything that hangs on them.

Each function is one transaction: rows go, and `removals.py` is told which objects must follow. What is in use stays, and
`InUse` says why; what the project does not have is None. A job's events, metrics, checkpoints, samples, reports and logs
go with it, and so do remembered answers under an `Idempotency-Key`, since they repeat what was sent.
"""

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.spec.exports import ExportFormat
from service.store import aliases, idempotency, keys, promotion_proofs, uploads
from service.store.database import Store, now
from service.store.models import (
    Checkpoint,
    Dataset,
    Export,
    Job,
    Labeling,
    PromptSet,
    Report,
    Sample,
    Sweep,
    SweepTrial,
)
from service.store.removals import SUPERSEDED_FOR, to_remove
from service.store.states import HELD, TERMINAL
from service.store.trials_to_come import sweeps_naming

JOBS_NAMED = 3


class InUse(Exception):  # noqa: N818 - a state of affairs, read as one
    """It cannot be deleted now. `code` is stable, the message says what to do first."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def delete_dataset(store: Store, project_id: str, dataset_id: str) -> str | None:
    """Delete a dataset or weights; `InUse` while it arrives, or while a job that has not ended or a sweep's trial to come needs it.

    A check of it is given up.
    """
    with store.write() as session:
        query = sa.select(Dataset).where(Dataset.id == dataset_id, Dataset.project_id == project_id)
        row = session.scalars(query.with_for_update()).one_or_none()
        if row is None:
            return None
        in_use = "dataset_in_use" if row.kind == "data" else "weights_in_use"
        if row.state == "uploading":
            raise InUse(in_use, "its upload has not ended")
        if users := _users_of(session, project_id, dataset_id):
            raise InUse(in_use, f"{_named(users)} need it; cancel them or let them end")
        session.delete(row)
        _forget_answers(session, project_id, [dataset_id])
        to_remove(session, [keys.dataset_prefix(project_id, dataset_id)], now(session))
        return dataset_id


def has_live_jobs(store: Store, project_id: str, dataset_id: str) -> bool:
    """Whether a job that has not ended names the dataset, or one that a sweep is yet to queue."""
    with store.read() as session:
        return bool(_users_of(session, project_id, dataset_id))


def delete_prompt_set(store: Store, project_id: str, prompt_set_id: str) -> str | None:
    """Delete a prompt set; `InUse` while a job that has not ended or is to come needs it. Specs that name it keep its hash."""
    with store.write() as session:
        query = sa.select(PromptSet).where(PromptSet.id == prompt_set_id, PromptSet.project_id == project_id)
        row = session.scalars(query.with_for_update()).one_or_none()
        if row is None:
            return None
        if users := _users_of(session, project_id, prompt_set_id):
            raise InUse("prompt_set_in_use", f"{_named(users)} need it; cancel them or let them end")
        session.delete(row)
        _forget_answers(session, project_id, [prompt_set_id])
        to_remove(session, [keys.prompt_set_prefix(project_id, prompt_set_id)], now(session))
        return prompt_set_id


def delete_job(store: Store, project_id: str, job_id: str) -> str | None:
    """Delete a job that has ended, and all that it left; `InUse` before its end."""
    with store.write() as session:
        row = _job(session, project_id, job_id)
        if row is None:
            return None
        if row.state not in TERMINAL:
            raise InUse("job_in_use", f"the job is {row.state}; cancel it first")
        own = sa.select(Checkpoint.id).where(Checkpoint.job_id == job_id)
        session.execute(own.order_by(Checkpoint.id).with_for_update())  # a fork that is being made is waited for
        _refuse_named(session, "job_in_use", own)
        if users := _jobs_from(session, project_id, own):
            raise InUse("job_in_use", f"{_named(users)} begin from a checkpoint of it; cancel them or let them end")
        if session.scalars(own.where(Checkpoint.is_pinned)).first() is not None:
            raise InUse("job_has_pinned", "one of its checkpoints is pinned; unpin it first")
        session.execute(sa.update(SweepTrial).where(SweepTrial.job_id == job_id).values(job_id=None))
        session.execute(sa.delete(Job).where(Job.id == job_id))  # the rest goes by the tables' own cascades
        _forget_answers(session, project_id, [job_id])
        to_remove(session, [keys.job_prefix(project_id, job_id)], now(session))
        return job_id


def delete_evaluation(store: Store, project_id: str, evaluation_id: str) -> str | None:
    """Delete an evaluation that has ended with its verifications, and all that they left; `InUse` before their end.

    And while a name points at what the evaluation earned it.
    """
    with store.write() as session:
        row = _job(session, project_id, evaluation_id)
        if row is None:
            return None
        own = sa.select(Job).where(Job.parent_job_id == evaluation_id, Job.project_id == project_id)
        rows = [row, *session.scalars(own.order_by(Job.id).with_for_update())]
        for one in rows:
            if one.state not in TERMINAL:
                what = "it" if one is row else f"its verification {one.id}"
                raise InUse("evaluation_in_use", f"{what} is {one.state}; cancel it first")
        if names := promotion_proofs.needing(session, project_id, evaluation_id):
            raise InUse(
                "evaluation_in_use",
                f"{_pointing(names)} at what it earned; promote another checkpoint, or delete the alias",
            )
        ids = [one.id for one in rows]
        session.execute(sa.delete(Job).where(Job.id.in_(ids)))  # the rest goes by the tables' own cascades
        _forget_answers(session, project_id, ids)
        to_remove(session, [keys.job_prefix(project_id, one) for one in ids], now(session))
        return evaluation_id


def delete_candidates(store: Store, project_id: str, candidates_id: str) -> str | None:
    """Delete candidates that have ended, with their images; `InUse` before their end."""
    with store.write() as session:
        row = _job(session, project_id, candidates_id)
        if row is None:
            return None
        if row.state not in TERMINAL:
            raise InUse("candidates_in_use", f"they are {row.state}; cancel them first")
        shown = sa.select(Labeling.id).where(Labeling.candidates_id == candidates_id).order_by(Labeling.id)
        if labelings := session.scalars(shown.limit(JOBS_NAMED + 1)).all():
            raise InUse(
                "candidates_in_use", f"{_named(list(labelings))} show their images; delete what shows them first"
            )
        session.execute(sa.delete(Job).where(Job.id == candidates_id))  # the rest goes by the tables' own cascades
        _forget_answers(session, project_id, [candidates_id])
        to_remove(session, [keys.job_prefix(project_id, candidates_id)], now(session))
        return candidates_id


def delete_sweep(store: Store, project_id: str, sweep_id: str) -> str | None:
    """Delete a sweep of which nothing will run any more, with its table; its jobs stay. `InUse` before."""
    with store.write() as session:
        query = sa.select(Sweep).where(Sweep.id == sweep_id, Sweep.project_id == project_id)
        row = session.scalars(query.with_for_update()).one_or_none()
        if row is None:
            return None
        mine = sa.select(Job.id).join(SweepTrial, SweepTrial.job_id == Job.id).where(SweepTrial.sweep_id == sweep_id)
        live = mine.where(Job.state.not_in(TERMINAL)).order_by(Job.id).limit(JOBS_NAMED + 1)
        running = list(session.scalars(live))
        if row.is_open or running:
            what = "it has jobs to queue" if row.is_open else f"{_named(running)} have not ended"
            raise InUse("sweep_in_use", f"{what}; cancel it first")
        session.delete(row)  # its trials go by their table's own cascade
        _forget_answers(session, project_id, [sweep_id])
        return sweep_id


def delete_checkpoint(store: Store, project_id: str, checkpoint_id: str, *, even_result: bool = False) -> str | None:
    """Delete a checkpoint of a job that has ended; `InUse` before, and for the job's result unless `even_result`."""
    with store.write() as session:
        job_id = session.scalars(
            sa.select(Checkpoint.job_id).where(Checkpoint.id == checkpoint_id, Checkpoint.project_id == project_id)
        ).one_or_none()
        job = None if job_id is None else _job(session, project_id, job_id)
        row = session.get(Checkpoint, checkpoint_id, with_for_update=True)  # a fork that is being made is waited for
        if job is None or row is None:
            return None
        if job.state not in TERMINAL:
            raise InUse("checkpoint_in_use", f"its job is {job.state} and may go on from it; cancel the job first")
        own = sa.select(Checkpoint.id).where(Checkpoint.id == checkpoint_id)
        _refuse_named(session, "checkpoint_in_use", own)
        if users := _jobs_from(session, project_id, own):
            raise InUse("checkpoint_in_use", f"{_named(users)} begin from it; cancel them or let them end")
        if not even_result and checkpoint_id in (job.result_checkpoint_id, _only_result(job)):
            raise InUse(
                "checkpoint_is_result", "it is the result of its job; delete the job, or say `even_result=true`"
            )
        if row.is_pinned:
            raise InUse("checkpoint_pinned", "it is pinned; unpin it first")
        remove_checkpoint(session, job, row)
        return checkpoint_id


def delete_export(store: Store, checkpoint_id: str, format: ExportFormat) -> str | None:
    """Delete an export of a checkpoint that the caller may see; `InUse` while a worker makes it."""
    with store.write() as session:
        query = sa.select(Export).where(Export.checkpoint_id == checkpoint_id, Export.format == format)
        row = session.scalars(query.with_for_update()).one_or_none()
        if row is None:
            return None
        if row.state == "running":
            raise InUse("export_in_use", "a worker is making it; wait for its end")
        session.delete(row)
        to_remove(session, [keys.export_prefix(row.project_id, row.job_id, checkpoint_id, row.id)], now(session))
        return row.id


def delete_sample(store: Store, project_id: str, job_id: str, sample_id: str) -> str | None:
    """Delete a picture of a job. A job that runs may draw one for the same step again, so there its object goes a day later."""
    with store.write() as session:
        job = _job(session, project_id, job_id)
        query = sa.select(Sample).where(
            Sample.id == sample_id, Sample.job_id == job_id, Sample.project_id == project_id
        )
        row = session.scalars(query.with_for_update()).one_or_none()
        if row is None:
            return None
        is_at_work = job is not None and job.state in HELD and job.attempt == row.attempt
        session.delete(row)
        to_remove(session, [row.object_key], now(session), SUPERSEDED_FOR if is_at_work else timedelta(0))
        return sample_id


def delete_report(store: Store, project_id: str, job_id: str) -> str | None:
    """Delete the reports of a job that has ended, with their pages; the job's id, or None where there is none."""
    with store.write() as session:
        job = _job(session, project_id, job_id)
        rows = session.scalars(sa.select(Report).where(Report.job_id == job_id)).all()
        if job is None or not rows:
            return None
        if job.state not in TERMINAL:
            raise InUse("report_in_use", f"the job is {job.state}; cancel it first")
        to_remove(session, [row.page_object_key for row in rows if row.page_object_key is not None], now(session))
        for row in rows:
            session.delete(row)
        return job_id


def remove_checkpoint(session: Session, job: Job, row: Checkpoint) -> None:
    """Delete a checkpoint that nobody needs; job and checkpoint are locked."""
    # by attempt: a later one may save this step anew, and must keep what it saves
    attempts = range(1, job.attempt + 1)
    prefixes = [keys.checkpoint_prefix(job.project_id, job.id, row.step, attempt) for attempt in attempts]
    prefixes.append(keys.exports_prefix(job.project_id, job.id, row.id))
    session.delete(row)
    session.flush()
    _move_on(session, job, row.id)
    to_remove(session, prefixes, now(session))


def _refuse_named(session: Session, code: str, checkpoint_ids: sa.Select[str]) -> None:
    """`InUse` where an alias points at one of the checkpoints."""
    if names := aliases.names_of(session, checkpoint_ids):
        raise InUse(code, f"{_pointing(names)} at it; promote another checkpoint, or delete the alias")


def _pointing(names: list[str]) -> str:
    return f"the alias {names[0]} points" if len(names) == 1 else f"the aliases {', '.join(names)} point"


def _only_result(job: Job) -> str | None:
    """Jobs that never chose a result have their latest checkpoint as one."""
    return job.latest_checkpoint_id if job.result_checkpoint_id is None else None


def _move_on(session: Session, job: Job, deleted_id: str) -> None:
    """The job's latest checkpoint is the latest that is left; a result that is gone is nobody's."""
    newest = sa.select(Checkpoint.id).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step.desc()).limit(1)
    job.latest_checkpoint_id = session.scalars(newest).one_or_none()
    if job.result_checkpoint_id == deleted_id:
        job.result_checkpoint_id = None
    job.updated_at = now(session)


def _job(session: Session, project_id: str, job_id: str) -> Job | None:
    query = sa.select(Job).where(Job.id == job_id, Job.project_id == project_id)
    return session.scalars(query.with_for_update()).one_or_none()


def _users_of(session: Session, project_id: str, dataset_id: str) -> list[str]:
    """Ids of jobs that have not ended whose spec names the dataset or prompt set, or of sweeps that are yet to queue such a one.

    Its id is too long to occur by chance.
    """
    not_ended = sa.select(Job.id).where(Job.project_id == project_id, Job.state.not_in(TERMINAL))
    named = sa.cast(Job.spec, sa.Text).contains(dataset_id, autoescape=True)
    found = session.scalars(not_ended.where(named).order_by(Job.id).limit(JOBS_NAMED + 1))
    return [*found, *sweeps_naming(session, project_id, dataset_id, JOBS_NAMED + 1)]


def _jobs_from(session: Session, project_id: str, checkpoint_ids: sa.Select[Any]) -> list[str]:
    """Ids of the project's jobs that have not ended and go on, or will go on, from one of the checkpoints, or name it in their spec,
    and of sweeps that are yet to queue such a job."""
    not_ended = sa.select(Job.id).where(Job.project_id == project_id, Job.state.not_in(TERMINAL))
    wanted = checkpoint_ids.subquery()
    named = sa.exists().where(sa.cast(Job.spec, sa.Text).contains(wanted.c.id))
    begun = not_ended.where(sa.or_(Job.resume_from_checkpoint_id.in_(checkpoint_ids), named))
    found = session.scalars(begun.order_by(Job.id).limit(JOBS_NAMED + 1))
    to_come = (sweeps_naming(session, project_id, one, JOBS_NAMED) for one in session.scalars(checkpoint_ids))
    return [*found, *{sweep_id: None for those in to_come for sweep_id in those}]


def _named(job_ids: list[str]) -> str:
    shown = ", ".join(job_ids[:JOBS_NAMED])
    return f"{shown} and more" if len(job_ids) > JOBS_NAMED else shown


def _forget_answers(session: Session, project_id: str, resource_ids: list[str]) -> None:
    idempotency.forget_those_of(session, project_id, resource_ids)
    uploads.forget_those_of(session, project_id, resource_ids)
