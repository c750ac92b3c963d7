"""Aliases: `champion`, `candidate` and names of one's own for a project's checkpoints, and the history of each.

A name moves only onto a checkpoint whose report shows that it is better than what it was trained from, or by force, which
stands in the history with its reason. `candidate` needs no proof: it names what is still to be proven.
The functions take a `database.Store` first and return frozen records.
"""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.reports import EvaluationReport, RewardComparison
from alignment_core.spec import sha256_of_json
from service.store.database import Store, now
from service.store.ids import new_id
from service.store.models import Alias, Checkpoint, Project, Promotion, Report
from service.store.records import AliasRecord, PromotionRecord, Proof, Slice

CHAMPION, CANDIDATE = "champion", "candidate"


class Unproven(Exception):  # noqa: N818 - a state of affairs, read as one
    """No report shows that the checkpoint is better; the message says what there is instead."""


def promote(
    store: Store,
    *,
    project_id: str,
    alias: str,
    checkpoint_id: str,
    force: bool = False,
    reason: str | None = None,
    promotion_id: str | None = None,
) -> PromotionRecord | None:
    """Point the alias at the checkpoint; None when the project has no such checkpoint. Raises `Unproven`.

    The checkpoint is kept from being deleted until the alias is there for all to see. `promotion_id` is the id that
    `idempotency.begin` set aside.
    """
    with store.write() as session:
        if promotion_id is not None and (existing := session.get(Promotion, promotion_id)) is not None:
            return _record_of(existing)
        wanted = sa.select(Checkpoint).where(Checkpoint.id == checkpoint_id, Checkpoint.project_id == project_id)
        checkpoint = session.scalars(wanted.with_for_update(read=True)).one_or_none()
        if checkpoint is None:
            return None
        report = session.get(Report, (checkpoint.job_id, checkpoint.step))
        proof = None if report is None else _proof_of(checkpoint.job_id, report)
        lacking = None if alias == CANDIDATE else _lacking(checkpoint, proof)
        if lacking is not None and not force:
            raise Unproven(lacking)
        # one after the other: of two that give a new name there is no row yet that they could wait for
        session.execute(sa.select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))
        current = session.get(Alias, (project_id, alias), with_for_update=True)
        row = Promotion(
            id=promotion_id or new_id("prm"),
            project_id=project_id,
            alias=alias,
            checkpoint_id=checkpoint.id,
            job_id=checkpoint.job_id,
            step=checkpoint.step,
            previous_checkpoint_id=None if current is None else current.checkpoint_id,
            proof=None if proof is None else proof.model_dump(mode="json"),
            forced=lacking is not None,
            reason=reason,
            created_at=now(session),
        )
        session.add(row)
        session.flush()
        session.merge(Alias(project_id=project_id, name=alias, checkpoint_id=checkpoint.id, promotion_id=row.id))
        return _record_of(row)


def _proof_of(job_id: str, row: Report) -> Proof | None:
    """What the report says of its primary reward; None where it has none."""
    report = EvaluationReport.model_validate(row.report)
    primary: RewardComparison | None = next((one for one in report.rewards if one.name == report.primary_reward), None)
    if primary is None:
        return None
    return Proof(
        job_id=job_id,
        step=row.step,
        report_sha256=sha256_of_json(row.report),
        reward=primary.name,
        gain=primary.gain,
        low=primary.gain_interval.low,
        high=primary.gain_interval.high,
        confidence=primary.gain_interval.confidence,
        verdict=report.verdict,
        num_prompts=report.num_prompts,
    )


def _lacking(checkpoint: Checkpoint, proof: Proof | None) -> str | None:
    """Why this is no proof; None where it is."""
    if proof is None:
        return f"there is no report with a reward on the checkpoint of step {checkpoint.step}"
    if proof.verdict == "unknown":
        return f"the report on step {proof.step} decides nothing: it has no interval"
    if not proof.low > 0:
        interval = f"{proof.low:+.4g} to {proof.high:+.4g}"
        return f"its gain in {proof.reward} is {proof.gain:+.4g} ({interval}), which does not show that it is better"
    return None


def retire(store: Store, project_id: str, alias: str, reason: str | None = None) -> str | None:
    """Take the name away, which the history tells too; None when it points at nothing."""
    with store.write() as session:
        current = session.get(Alias, (project_id, alias), with_for_update=True)
        if current is None:
            return None
        session.add(
            Promotion(
                id=new_id("prm"),
                project_id=project_id,
                alias=alias,
                checkpoint_id=None,
                previous_checkpoint_id=current.checkpoint_id,
                forced=False,
                reason=reason,
                created_at=now(session),
            )
        )
        session.delete(current)
        return alias


def get(store: Store, project_id: str, alias: str) -> AliasRecord | None:
    """What the name points at, or None."""
    with store.read() as session:
        row = session.get(Alias, (project_id, alias))
        return None if row is None else _alias_of(session, row)


def list_aliases(store: Store, project_id: str) -> tuple[AliasRecord, ...]:
    """All names of a project, in their order."""
    with store.read() as session:
        rows = session.scalars(sa.select(Alias).where(Alias.project_id == project_id).order_by(Alias.name))
        return tuple(_alias_of(session, row) for row in rows)


def get_promotion(store: Store, project_id: str, promotion_id: str) -> PromotionRecord | None:
    with store.read() as session:
        row = session.get(Promotion, promotion_id)
        return None if row is None or row.project_id != project_id else _record_of(row)


def list_promotions(
    store: Store, project_id: str, *, alias: str | None = None, after_id: str | None = None, limit: int = 20
) -> Slice[PromotionRecord]:
    """The history of a name, or of all of them: newest first, older than `after_id`."""
    query = sa.select(Promotion).where(Promotion.project_id == project_id).order_by(Promotion.id.desc())
    if alias is not None:
        query = query.where(Promotion.alias == alias)
    if after_id is not None:
        query = query.where(Promotion.id < after_id)
    with store.read() as session:
        rows = session.scalars(query.limit(limit + 1)).all()
        return Slice(tuple(_record_of(row) for row in rows[:limit]), has_more=len(rows) > limit)


def names_of(session: Session, checkpoint_ids: sa.Select[str]) -> list[str]:
    """The names that point at one of the checkpoints."""
    return list(
        session.scalars(sa.select(Alias.name).where(Alias.checkpoint_id.in_(checkpoint_ids)).order_by(Alias.name))
    )


def _alias_of(session: Session, row: Alias) -> AliasRecord:
    return AliasRecord(name=row.name, promotion=_record_of(session.get_one(Promotion, row.promotion_id)))


def _record_of(row: Promotion) -> PromotionRecord:
    return PromotionRecord.model_validate({field: getattr(row, field) for field in PromotionRecord.model_fields})
