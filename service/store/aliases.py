"""Aliases: `champion`, `candidate` and names of one's own for a project's checkpoints, and the history of each.

A name moves only onto a checkpoint of which a report shows that it is better (`promotion_proofs.py`), or by force, which
stands in the history with its reason. `candidate` needs no proof: it names what is still to be proven.
The functions take a `database.Store` first and return frozen records.
"""

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import announcements
from service.store.database import Store, now
from service.store.ids import new_id
from service.store.models import Alias, Checkpoint, Project, Promotion
from service.store.promotion_proofs import Unproven, lacking, of_evaluation, of_own_report
from service.store.records.base import Slice
from service.store.records.promotions import AliasRecord, PromotionRecord, Proof

CHAMPION, CANDIDATE = announcements.CHAMPION, "candidate"


class TooMany(Exception):  # noqa: N818 - a state of affairs, read as one
    """The project has as many names as it may."""


def promote(
    store: Store,
    *,
    project_id: str,
    alias: str,
    checkpoint_id: str,
    evaluation_id: str | None = None,
    force: bool = False,
    reason: str | None = None,
    promotion_id: str | None = None,
    most: int | None = None,
) -> PromotionRecord | None:
    """Point the alias at the checkpoint; None when the project has no such checkpoint. Raises `Unproven`, and `TooMany` where it is
    a new name and the project has `most` of them.

    Its job's report has to show that it is better, or that of `evaluation_id`, of which `EvaluationMissing` is raised when it is not there.
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
        # one after the other: of two that give a new name there is no row yet that they could wait for
        session.execute(sa.select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))
        current = session.get(Alias, (project_id, alias), with_for_update=True)
        if current is None and most is not None and _number_of(session, project_id) >= most:
            raise TooMany
        proof, missing = _proven(session, checkpoint, evaluation_id, current)
        is_forced = missing is not None and alias != CANDIDATE
        if is_forced and not force:
            raise Unproven(missing)
        row = Promotion(
            id=promotion_id or new_id("prm"),
            project_id=project_id,
            alias=alias,
            checkpoint_id=checkpoint.id,
            job_id=checkpoint.job_id,
            step=checkpoint.step,
            previous_checkpoint_id=None if current is None else current.checkpoint_id,
            proof=None if proof is None else proof.model_dump(mode="json"),
            forced=is_forced,
            reason=reason,
            created_at=now(session),
        )
        session.add(row)
        session.flush()
        session.merge(Alias(project_id=project_id, name=alias, checkpoint_id=checkpoint.id, promotion_id=row.id))
        announcements.alias_changed(session, row)
        return _record_of(row)


def _number_of(session: Session, project_id: str) -> int:
    return session.scalar(sa.select(sa.func.count()).where(Alias.project_id == project_id)) or 0


def _proven(
    session: Session, checkpoint: Checkpoint, evaluation_id: str | None, current: Alias | None
) -> tuple[Proof | None, str | None]:
    """What a report says of the checkpoint, and why that is no proof, if it is none."""
    if evaluation_id is None:
        proof = of_own_report(session, checkpoint)
        return proof, lacking(checkpoint, proof)
    try:
        proof = of_evaluation(session, checkpoint, evaluation_id, None if current is None else current.checkpoint_id)
    except Unproven as error:
        return None, str(error)
    return proof, lacking(checkpoint, proof)


def retire(store: Store, project_id: str, alias: str, reason: str | None = None) -> str | None:
    """Take the name away, which the history tells too; None when it points at nothing."""
    with store.write() as session:
        current = session.get(Alias, (project_id, alias), with_for_update=True)
        if current is None:
            return None
        row = Promotion(
            id=new_id("prm"),
            project_id=project_id,
            alias=alias,
            checkpoint_id=None,
            previous_checkpoint_id=current.checkpoint_id,
            forced=False,
            reason=reason,
            created_at=now(session),
        )
        session.add(row)
        session.delete(current)
        announcements.alias_changed(session, row)
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
