"""The images that runs of candidates leave, and what the next ones know of them."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.events import CandidatesDrawn
from alignment_core.spec import CandidatesSpec, DrawnAlready
from service.store.database import Store
from service.store.ids import new_id
from service.store.models import CandidateImage, CandidateRecipe, Job
from service.store.records.base import Slice, StoredFile
from service.store.records.candidates import CandidateImageRecord
from service.store.records.jobs import JobRecord
from service.store.removals import supersede

MOST_KNOWN = 5_000  # images that a run is told of, since they are brought to its machine


def put_images(session: Session, job: Job, event: CandidatesDrawn, files: Sequence[StoredFile]) -> None:
    """Note images that are in the object store by now, and what they were drawn with."""
    spec = CandidatesSpec.model_validate(job.spec)
    contender = next(one for one in spec.contenders if one.name == event.contender)
    alike = spec.drawn_alike(contender)
    by_path = {file.path: file for file in files}
    own = sa.select(CandidateImage).where(CandidateImage.job_id == job.id, CandidateImage.contender == event.contender)
    for one in event.images:
        file = by_path[one.path]
        place = own.where(CandidateImage.position == one.position, CandidateImage.number == one.number)
        old = session.scalars(place).one_or_none()
        if old is not None and old.object_key != file.object_key:
            supersede(session, old.object_key)
        told = one.model_dump(exclude={"path"})
        row = CandidateImage(
            id=new_id("img") if old is None else old.id,
            job_id=job.id,
            project_id=job.project_id,
            contender=event.contender,
            attempt=job.attempt,
            drawn_alike=alike,
            size_bytes=file.size_bytes,
            sha256=file.sha256,
            object_key=file.object_key,
            created_at=event.time,
            **told,
        )
        session.merge(row)
    session.merge(
        CandidateRecipe(
            job_id=job.id,
            contender=event.contender,
            attempt=job.attempt,
            project_id=job.project_id,
            recipe=event.recipe,
        )
    )


def drawn_already(store: Store, job_id: str) -> DrawnAlready:
    """What earlier attempts left, for a worker's next one."""
    of_job = sa.select(CandidateImage.contender, CandidateImage.position, CandidateImage.number)
    recipes = sa.select(CandidateRecipe.recipe).where(CandidateRecipe.job_id == job_id).limit(1)
    with store.read() as session:
        rows = session.execute(of_job.where(CandidateImage.job_id == job_id).order_by(CandidateImage.id)).all()
        recipe = session.scalars(recipes).one_or_none()
    precision = None if recipe is None else recipe["precision"]
    return DrawnAlready(images=tuple((row[0], row[1], row[2]) for row in rows), precision=precision)


def known_images(store: Store, job: JobRecord) -> tuple[CandidateImageRecord, ...]:
    """Images that the project has of the same models, settings and origin of seeds: the newest, one of each fingerprint."""
    spec = CandidatesSpec.model_validate(job.spec)
    alike = [spec.drawn_alike(one) for one in spec.contenders]
    query = sa.select(CandidateImage).where(
        CandidateImage.project_id == job.project_id,
        CandidateImage.drawn_alike.in_(alike),
        CandidateImage.job_id != job.id,
    )
    if spec.seeds is not None:
        query = query.where(CandidateImage.seed.in_(spec.seeds))
    if isinstance(spec.prompts, tuple) and len(spec.prompts) <= 100:
        query = query.where(CandidateImage.prompt.in_(spec.prompts))
    with store.read() as session:
        rows = session.scalars(query.order_by(CandidateImage.id.desc()).limit(MOST_KNOWN)).all()
        found = {row.fingerprint: row for row in rows}
        return tuple(CandidateImageRecord.model_validate(row) for row in found.values())


def list_images(
    store: Store,
    project_id: str,
    job_id: str,
    *,
    after_id: str | None = None,
    limit: int = 20,
    contender: str | None = None,
    position: int | None = None,
) -> Slice[CandidateImageRecord]:
    """The images of candidates, in the order in which they came."""
    query = sa.select(CandidateImage).where(CandidateImage.job_id == job_id, CandidateImage.project_id == project_id)
    if after_id is not None:
        query = query.where(CandidateImage.id > after_id)
    if contender is not None:
        query = query.where(CandidateImage.contender == contender)
    if position is not None:
        query = query.where(CandidateImage.position == position)
    with store.read() as session:
        rows = session.scalars(query.order_by(CandidateImage.id).limit(limit + 1)).all()
        return Slice(tuple(map(CandidateImageRecord.model_validate, rows[:limit])), has_more=len(rows) > limit)


def get_image(store: Store, project_id: str, job_id: str, image_id: str) -> CandidateImageRecord | None:
    """None where these candidates have no such image."""
    query = sa.select(CandidateImage).where(
        CandidateImage.id == image_id, CandidateImage.job_id == job_id, CandidateImage.project_id == project_id
    )
    with store.read() as session:
        row = session.scalars(query).one_or_none()
        return None if row is None else CandidateImageRecord.model_validate(row)


def recipes_of(store: Store, project_id: str, job_id: str) -> dict[tuple[str, int], dict[str, Any]]:
    """What each attempt drew each contender with."""
    query = sa.select(CandidateRecipe).where(CandidateRecipe.job_id == job_id, CandidateRecipe.project_id == project_id)
    with store.read() as session:
        return {(row.contender, row.attempt): row.recipe for row in session.scalars(query)}
