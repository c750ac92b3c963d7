"""Labelings: pairs of candidates, and what people say of them. A vote is a row of its person and question, so that none is doubled."""

from collections.abc import Sequence
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from service.store.database import Store, now
from service.store.ids import new_id
from service.store.models import CandidateImage, IdempotencyKey, Job, Labeling, LabelingQuestion, LabelingVote
from service.store.pairing import Drawn, Question, questions_of
from service.store.records.base import Slice
from service.store.records.candidates import CandidateImageRecord, LabelingRecord, VoteRecord
from service.store.states import TERMINAL

Choice = Literal["first", "second", "tie", "both_bad", "skip"]


class NotDrawn(Exception):  # noqa: N818 - a state of affairs, read as one
    """The candidates are drawn still, or are not there any more: `state` is None then."""

    def __init__(self, state: str | None) -> None:
        super().__init__(state)
        self.state = state


class NoPairs(Exception):  # noqa: N818 - a state of affairs, read as one
    """The candidates have no two different images of a prompt that could be asked for."""


class LabelingGone(Exception):  # noqa: N818 - a state of affairs, read as one
    """The labeling was deleted just now."""


def create(
    store: Store,
    *,
    project_id: str,
    candidates_id: str,
    num_pairs: int,
    repeated: float,
    seed: int,
    name: str | None = None,
    between: tuple[str, str] | None = None,
    report_of: str | None = None,
    labeling_id: str | None = None,
) -> LabelingRecord:
    """Make the pairs of candidates that have ended. Raises `NotDrawn`, `NoPairs`; an id that is there returns what is there."""
    with store.write() as session:
        if labeling_id is not None and (there := _row(session, project_id, labeling_id)) is not None:
            return LabelingRecord.model_validate(there)
        held = sa.select(Job).where(Job.id == candidates_id, Job.project_id == project_id).with_for_update()
        row = session.scalars(held).one_or_none()
        if row is None or row.state not in TERMINAL:
            raise NotDrawn(None if row is None else row.state)
        columns = (
            CandidateImage.id,
            CandidateImage.contender,
            CandidateImage.position,
            CandidateImage.number,
            CandidateImage.pixels_sha256,
        )
        drawn = session.execute(
            sa.select(*columns)
            .where(CandidateImage.job_id == candidates_id)
            .order_by(CandidateImage.position, CandidateImage.contender, CandidateImage.number)
        )
        images = [Drawn(*one) for one in drawn]
        questions = questions_of(images, num_pairs=num_pairs, repeated=repeated, seed=seed, between=between)
        if not questions:
            raise NoPairs(candidates_id)
        labeling = Labeling(
            id=labeling_id or new_id("lab"),
            project_id=project_id,
            name=name,
            candidates_id=candidates_id,
            between=None if between is None else list(between),
            report_of=report_of,
            seed=seed,
            num_pairs=sum(one.repeat_of is None for one in questions),
            num_questions=len(questions),
            created_at=now(session),
        )
        session.add(labeling)
        session.flush()
        session.execute(
            sa.insert(LabelingQuestion),
            [{"labeling_id": labeling.id, "project_id": project_id, **vars(one)} for one in questions],
        )
        return LabelingRecord.model_validate(labeling)


def get(store: Store, project_id: str, labeling_id: str) -> LabelingRecord | None:
    with store.read() as session:
        row = _row(session, project_id, labeling_id)
        return None if row is None else LabelingRecord.model_validate(row)


def list_labelings(
    store: Store, project_id: str, *, after_id: str | None = None, limit: int = 20
) -> Slice[LabelingRecord]:
    """The project's labelings, newest first."""
    query = sa.select(Labeling).where(Labeling.project_id == project_id)
    if after_id is not None:
        query = query.where(Labeling.id < after_id)
    with store.read() as session:
        rows = session.scalars(query.order_by(Labeling.id.desc()).limit(limit + 1)).all()
        return Slice(tuple(map(LabelingRecord.model_validate, rows[:limit])), has_more=len(rows) > limit)


def delete(store: Store, project_id: str, labeling_id: str) -> str | None:
    """Delete a labeling with its votes; candidates and data sets that were made of it stay."""
    with store.write() as session:
        row = _row(session, project_id, labeling_id)
        if row is None:
            return None
        session.delete(row)
        answers = (IdempotencyKey.project_id == project_id, IdempotencyKey.resource_id == labeling_id)
        session.execute(sa.delete(IdempotencyKey).where(*answers))
        return labeling_id


def reporting_to(store: Store, project_id: str, subject_id: str) -> tuple[LabelingRecord, ...]:
    """The blind comparisons that the report of a job or an evaluation tells of, the first one first."""
    query = sa.select(Labeling).where(Labeling.project_id == project_id, Labeling.report_of == subject_id)
    with store.read() as session:
        return tuple(map(LabelingRecord.model_validate, session.scalars(query.order_by(Labeling.id))))


# --- questions and votes -------------------------------------------------------------------------------------------


def questions(store: Store, labeling_id: str) -> list[Question]:
    """All of them, in the order of their numbers."""
    columns = (
        LabelingQuestion.number,
        LabelingQuestion.first_id,
        LabelingQuestion.second_id,
        LabelingQuestion.repeat_of,
    )
    query = sa.select(*columns).where(LabelingQuestion.labeling_id == labeling_id).order_by(LabelingQuestion.number)
    with store.read() as session:
        return [Question(*one) for one in session.execute(query)]


def question(store: Store, labeling_id: str, number: int) -> Question | None:
    with store.read() as session:
        row = session.get(LabelingQuestion, (labeling_id, number))
        return None if row is None else Question(row.number, row.first_id, row.second_id, row.repeat_of)


def images_of(store: Store, image_ids: Sequence[str]) -> dict[str, CandidateImageRecord]:
    """Images by their ids."""
    found: dict[str, CandidateImageRecord] = {}
    with store.read() as session:
        for start in range(0, len(image_ids), 500):
            some = sa.select(CandidateImage).where(CandidateImage.id.in_(image_ids[start : start + 500]))
            found |= {row.id: CandidateImageRecord.model_validate(row) for row in session.scalars(some)}
    return found


def votes(store: Store, labeling_id: str, annotator: str | None = None) -> tuple[VoteRecord, ...]:
    """What was said, by all or by one, the first vote first."""
    query = sa.select(LabelingVote).where(LabelingVote.labeling_id == labeling_id)
    if annotator is not None:
        query = query.where(LabelingVote.annotator == annotator)
    ordered = query.order_by(LabelingVote.voted_at, LabelingVote.annotator, LabelingVote.number)
    with store.read() as session:
        return tuple(map(VoteRecord.model_validate, session.scalars(ordered)))


def num_answered(store: Store, labeling_ids: Sequence[str], annotator: str) -> dict[str, int]:
    """How many questions of each labeling somebody has answered."""
    mine = (LabelingVote.labeling_id.in_(labeling_ids), LabelingVote.annotator == annotator)
    query = sa.select(LabelingVote.labeling_id, sa.func.count()).where(*mine).group_by(LabelingVote.labeling_id)
    with store.read() as session:
        counted = {row[0]: row[1] for row in session.execute(query)}
    return {one: counted.get(one, 0) for one in labeling_ids}


def vote(store: Store, labeling: LabelingRecord, annotator: str, number: int, choice: Choice) -> None:
    """Put down what somebody says of a question; the same again changes nothing, something else takes its place. Raises `LabelingGone`."""
    with store.write() as session:
        there = sa.select(Labeling.id).where(Labeling.id == labeling.id)
        if session.scalars(there.with_for_update(read=True, key_share=True)).one_or_none() is None:
            raise LabelingGone(labeling.id)
        insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
        said: dict[str, Any] = {"choice": choice, "voted_at": now(session)}
        key = {"labeling_id": labeling.id, "annotator": annotator, "number": number}
        first = insert(LabelingVote).values(**key, **said, project_id=labeling.project_id)
        session.execute(
            first.on_conflict_do_update(index_elements=list(key), set_=said, where=LabelingVote.choice != choice)
        )


def take_back(store: Store, labeling_id: str, annotator: str, number: int) -> None:
    """Forget what somebody said of a question; nothing where nothing was said."""
    with store.write() as session:
        mine = (LabelingVote.labeling_id == labeling_id, LabelingVote.annotator == annotator)
        session.execute(sa.delete(LabelingVote).where(*mine, LabelingVote.number == number))


def _row(session: Session, project_id: str, labeling_id: str) -> Labeling | None:
    query = sa.select(Labeling).where(Labeling.id == labeling_id, Labeling.project_id == project_id)
    return session.scalars(query).one_or_none()
