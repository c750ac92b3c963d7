"""What runs of evaluations leave: shards while they draw, then the report and the scores; and their verifications.

A verification is a row of `jobs` (`kinds.py`), whose parent the evaluation is.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.events import ImagesScored, ProofCompleted, VerificationCompleted
from alignment_core.spec import ProofSpec
from service.store import jobs
from service.store.database import Store
from service.store.ids import new_id
from service.store.models import Job, Proof, ProofShard
from service.store.queueing import add, new_row
from service.store.records.base import StoredFile
from service.store.records.jobs import JobRecord, JobSummary
from service.store.records.runs import ProofRecord
from service.store.removals import supersede
from service.store.states import TERMINAL, InvalidTransition


def create_verification(
    store: Store, evaluation: JobRecord, num_prompts: int, verification_id: str | None = None
) -> JobRecord | None:
    """Queue a verification of an evaluation that has ended well; None where that is gone. Creating an id a second time returns what is there."""
    spec = ProofSpec.model_validate(evaluation.spec)
    with store.write() as session:
        parent = jobs.row_of(session, evaluation.project_id, evaluation.id, lock=True)
        if parent is None:
            return None
        if verification_id is not None and (there := session.get(Job, verification_id)) is not None:
            return jobs.whole(session, there)
        row_id = verification_id or new_id("vfy")
        row = new_row(session, evaluation.project_id, row_id, spec, method="verification", model=parent.model)
        row.parent_job_id = evaluation.id
        row.spec = {"evaluation_id": evaluation.id, "evaluation": evaluation.spec, "num_prompts": num_prompts}
        add(session, row)
        return jobs.whole(session, row)


def verifications_of(store: Store, project_id: str, evaluation_id: str) -> tuple[JobSummary, ...]:
    """Those of an evaluation, the first one first."""
    query = sa.select(Job).where(Job.project_id == project_id, Job.parent_job_id == evaluation_id).order_by(Job.id)
    with store.read() as session:
        return tuple(jobs.shown(session, session.scalars(query.options(jobs.WITHOUT_SPEC)).all()))


def cancel_verifications(store: Store, project_id: str, evaluation_id: str) -> bool:
    """Cancel those of an evaluation that have not ended; whether there were any."""
    live = [one for one in verifications_of(store, project_id, evaluation_id) if one.state not in TERMINAL]
    for one in live:
        with suppress(InvalidTransition):  # it has ended since
            jobs.request_cancel(store, project_id, one.id)
    return bool(live)


# --- what a run leaves ---------------------------------------------------------------------------------------------


def put_shard(session: Session, job: Job, event: ImagesScored, files: Sequence[StoredFile]) -> None:
    """Note what a run has drawn and scored, which is in the object store by now."""
    (file,) = files
    old = session.get(ProofShard, (job.id, file.path))
    if old is not None and old.object_key != file.object_key:
        supersede(session, old.object_key)
    told = file.model_dump(include={"path", "size_bytes", "sha256", "object_key"})
    session.merge(ProofShard(job_id=job.id, project_id=job.project_id, **told))


def shards_of(store: Store, job_id: str) -> tuple[StoredFile, ...]:
    """What earlier attempts drew, for a worker's next one."""
    with store.read() as session:
        rows = session.scalars(sa.select(ProofShard).where(ProofShard.job_id == job_id).order_by(ProofShard.path))
        return tuple(_file(row.path, row.size_bytes, row.sha256, row.object_key) for row in rows)


def put_proof(
    session: Session, job: Job, event: ProofCompleted | VerificationCompleted, files: Sequence[StoredFile]
) -> None:
    """Store the report; of an evaluation with its file of scores."""
    (scores,) = files or (None,)
    old = session.get(Proof, job.id)
    old_key = None if old is None else old.scores_object_key
    if old_key is not None and (scores is None or old_key != scores.object_key):
        supersede(session, old_key)
    session.merge(
        Proof(
            job_id=job.id,
            project_id=job.project_id,
            attempt=job.attempt,
            report=event.report,
            scores_size_bytes=None if scores is None else scores.size_bytes,
            scores_sha256=None if scores is None else scores.sha256,
            scores_object_key=None if scores is None else scores.object_key,
            created_at=event.time,
        )
    )


def get_proof(store: Store, project_id: str, job_id: str) -> ProofRecord | None:
    """The report of an evaluation or a verification, and the scores; None while there is none."""
    with store.read() as session:
        row = session.scalars(
            sa.select(Proof).where(Proof.job_id == job_id, Proof.project_id == project_id)
        ).one_or_none()
        return None if row is None else _proof_of(row)


def reports_of(store: Store, project_id: str, job_ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The reports of several, by id; those without one are left out."""
    query = sa.select(Proof.job_id, Proof.report).where(Proof.project_id == project_id, Proof.job_id.in_(job_ids))
    with store.read() as session:
        return {row.job_id: row.report for row in session.execute(query)}


def _proof_of(row: Proof) -> ProofRecord:
    scores = None
    if row.scores_object_key is not None:
        assert row.scores_size_bytes is not None
        assert row.scores_sha256 is not None
        scores = _file("scores.parquet", row.scores_size_bytes, row.scores_sha256, row.scores_object_key)
    return ProofRecord(
        job_id=row.job_id, attempt=row.attempt, report=row.report, scores=scores, created_at=row.created_at
    )


def _file(path: str, size_bytes: int, sha256: str, object_key: str) -> StoredFile:
    return StoredFile(path=path, size_bytes=size_bytes, sha256=sha256, object_key=object_key)
