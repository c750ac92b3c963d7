"""Evaluations as their owners see them, and what their runs leave: shards while they draw, then the report and the scores.

An evaluation is a row of `jobs` (`kinds.py`): it waits, is claimed, fenced, cancelled and resumed as every other. A verification is
another, whose parent it is.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.events import ImagesScored, ProofCompleted, VerificationCompleted
from alignment_core.spec import ProofSpec
from alignment_core.spec.sources import label_of
from service.store import jobs, quotas
from service.store.ancestry import hold_checkpoints
from service.store.database import Store, now
from service.store.ids import new_id
from service.store.kinds import Kind
from service.store.models import LONGEST_MODEL, Dataset, Job, PromptSet, Proof, ProofShard
from service.store.records import JobRecord, JobSummary, ProofRecord, Slice, StoredFile
from service.store.removals import supersede
from service.store.states import TERMINAL, InvalidTransition, JobState


def create(
    store: Store,
    *,
    project_id: str,
    spec: ProofSpec,
    name: str | None = None,
    metadata: Mapping[str, str] | None = None,
    evaluation_id: str | None = None,
    needs: Sequence[str] = (),
    needs_prompts: Sequence[str] = (),
    needs_checkpoints: Sequence[str] = (),
) -> JobRecord:
    """Queue an evaluation. Raises as `jobs.create`; creating an id a second time returns what is there."""
    anchor = next(one for one in spec.contenders if one.name == spec.anchor_name)
    with store.write() as session:
        if evaluation_id is not None and (there := jobs.row_of(session, project_id, evaluation_id)) is not None:
            return jobs.whole(session, there)
        jobs.hold_uploads(session, Dataset, project_id, needs)
        jobs.hold_uploads(session, PromptSet, project_id, needs_prompts)
        hold_checkpoints(session, project_id, needs_checkpoints)
        row = _row(session, project_id, evaluation_id or new_id("eval"), "eval", spec, label_of(anchor.model))
        row.name, row.labels, row.spec = name, dict(metadata or {}), spec.resolved().model_dump(mode="json")
        session.add(row)
        session.flush()
        jobs.add_labels(session, row)
        return jobs.whole(session, row)


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
        row = _row(session, evaluation.project_id, verification_id or new_id("vfy"), "vfy", spec, parent.model)
        row.parent_job_id, row.labels = evaluation.id, {}
        row.spec = {"evaluation_id": evaluation.id, "evaluation": evaluation.spec, "num_prompts": num_prompts}
        row.total_steps = None
        session.add(row)
        session.flush()
        return jobs.whole(session, row)


def _row(session: Session, project_id: str, row_id: str, kind: Kind, spec: ProofSpec, model: str) -> Job:
    quotas.admit_job(session, project_id)
    time = now(session)
    return Job(
        id=row_id,
        project_id=project_id,
        estimate=None,
        spec_sha256=spec.sha256(),
        method="evaluation" if kind == "eval" else "verification",
        model=model[:LONGEST_MODEL],
        processes=spec.resources.processes,
        state="queued",
        step=0,
        total_steps=spec.num_images,
        attempt=0,
        num_lost=0,
        last_seq=0,
        cancel_requested=False,
        created_at=time,
        queued_at=time,
        updated_at=time,
    )


def list_evaluations(
    store: Store,
    project_id: str,
    *,
    after_id: str | None = None,
    limit: int = 20,
    states: Collection[JobState] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Slice[JobSummary]:
    """The project's evaluations, newest first, without their specs."""
    return jobs.list_jobs(
        store, project_id, after_id=after_id, limit=limit, states=states, metadata=metadata, kind="eval"
    )


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
