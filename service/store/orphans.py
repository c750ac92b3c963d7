"""The sweep for objects that belong to nobody: what `orphan_rules.py` says of each job's, data set's, prompt set's and upload's objects."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from service.store.database import Store, now
from service.store.models import (
    CandidateImage,
    Checkpoint,
    CheckpointFile,
    Dataset,
    Export,
    Job,
    PromptSet,
    Proof,
    ProofShard,
    Report,
    Sample,
    TrackingFile,
    Upload,
)
from service.store.objects import ObjectInfo, ObjectStore
from service.store.orphan_rules import OWNED, OrphanReason, Owner, Stored, orphans
from service.store.states import HELD

log = structlog.get_logger()


@dataclass(frozen=True)
class Orphan:
    key: str
    size_bytes: int
    reason: OrphanReason


def find(store: Store, objects: ObjectStore, grace: timedelta) -> Iterator[Orphan]:
    """Every orphan, owner by owner in the order of keys; the database is asked after the objects were listed."""
    for owner, group in itertools.groupby(objects.list("projects/"), key=lambda info: _owner_of(info.key)):
        infos = {info.key: info for info in group}
        if owner is None:
            continue
        with store.read() as session:
            known, time = _known(session, *owner), now(session)
        for key, reason in orphans(map(_stored, infos.values()), known, time, grace):
            yield Orphan(key, infos[key].size_bytes, reason)


def remove(store: Store, objects: ObjectStore, grace: timedelta) -> tuple[int, int]:
    """Remove them; how many objects and bytes went."""
    count = size = 0
    for orphan in find(store, objects, grace):
        objects.delete(orphan.key)
        log.info("orphan_removed", key=orphan.key, size_bytes=orphan.size_bytes, reason=orphan.reason)
        count, size = count + 1, size + orphan.size_bytes
    return count, size


def _stored(info: ObjectInfo) -> Stored:
    return Stored(info.key, info.modified_at)


def _owner_of(key: str) -> tuple[str, str, str] | None:
    found = OWNED.fullmatch(key)
    return None if found is None else (found["project"], found["kind"], found["owner"])


def _known(session: Session, project_id: str, kind: str, owner_id: str) -> Owner | None:
    match kind:
        case "jobs":
            return _job(session, project_id, owner_id)
        case "datasets":
            return _dataset(session, project_id, owner_id)
        case "prompt_sets":
            there = sa.select(PromptSet.id).where(PromptSet.id == owner_id, PromptSet.project_id == project_id)
        case "uploads":
            there = sa.select(Upload.id).where(Upload.id == owner_id, Upload.project_id == project_id)
        case _:
            return Owner()  # not of ours: it stays
    return None if session.scalars(there).one_or_none() is None else Owner()


def _dataset(session: Session, project_id: str, dataset_id: str) -> Owner | None:
    """Its file and what was encoded of it have no attempt in their keys, so they are its own; what was made to be browsed is if it is named."""
    found = session.execute(
        sa.select(Dataset.state, Dataset.attempt, Dataset.browsing_key).where(
            Dataset.id == dataset_id, Dataset.project_id == project_id
        )
    ).one_or_none()
    if found is None:
        return None
    return Owner(
        names_all=True,
        keys=frozenset() if found.browsing_key is None else frozenset({found.browsing_key}),
        running_attempt=found.attempt if found.state == "checking" else None,
    )


def _job(session: Session, project_id: str, job_id: str) -> Owner | None:
    found = session.execute(
        sa.select(Job.state, Job.attempt).where(Job.id == job_id, Job.project_id == project_id)
    ).one_or_none()
    if found is None:
        return None
    exports = session.execute(sa.select(Export.id, Export.state, Export.files).where(Export.job_id == job_id)).all()
    named = (
        sa.select(CheckpointFile.object_key)
        .join(Checkpoint, Checkpoint.id == CheckpointFile.checkpoint_id)
        .where(Checkpoint.job_id == job_id),
        sa.select(Sample.object_key).where(Sample.job_id == job_id),
        sa.select(TrackingFile.object_key).where(TrackingFile.job_id == job_id),
        sa.select(Proof.scores_object_key).where(Proof.job_id == job_id, Proof.scores_object_key.is_not(None)),
        sa.select(CandidateImage.object_key).where(CandidateImage.job_id == job_id),
        sa.select(ProofShard.object_key).where(ProofShard.job_id == job_id),
        sa.select(Report.page_object_key).where(Report.job_id == job_id, Report.page_object_key.is_not(None)),
    )
    keys = {key for query in named for key in session.scalars(query) if key is not None}
    return Owner(
        names_all=True,
        keys=frozenset(keys | {file["object_key"] for _, _, files in exports for file in files}),
        running_attempt=found.attempt if found.state in HELD else None,
        open_exports=frozenset(one for one, state, _ in exports if state in ("queued", "running")),
    )
