"""Prompt sets: prompts that were uploaded, each with its hash. They never change.

The functions take a `database.Store` first and return frozen records.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.prompt_files import PromptsReport
from service.store import quotas, uploads
from service.store.database import Store, now
from service.store.models import LONGEST_FILENAME, LONGEST_NAME, PromptSet
from service.store.records.base import Slice, StoredFile
from service.store.records.uploads import PromptSetRecord


def create(
    store: Store,
    *,
    prompt_set_id: str,
    project_id: str,
    filename: str,
    name: str | None,
    report: PromptsReport,
    file: StoredFile,
    upload_id: str | None = None,
) -> PromptSetRecord:
    """A prompt set whose file is in the object store. One that is there under this id is returned as it is.

    It counts towards the project's quota in place of the upload that it is made of.
    """
    for field, text, longest in (("name", name or "", LONGEST_NAME), ("filename", filename, LONGEST_FILENAME)):
        if "\0" in text or len(text) > longest:
            raise ValueError(f"{field} must have at most {longest} characters, none of them NUL")
    with store.write() as session:
        if (existing := _row(session, project_id, prompt_set_id)) is not None:
            return _record_of(existing)
        uploads.release(session, upload_id)
        quotas.admit_bytes(session, project_id, file.size_bytes)
        row = PromptSet(
            id=prompt_set_id,
            project_id=project_id,
            name=name,
            filename=filename,
            num_prompts=report.num_prompts,
            sha256=report.sha256,
            report=report.model_dump(mode="json"),
            size_bytes=file.size_bytes,
            file_sha256=file.sha256,
            object_key=file.object_key,
            created_at=now(session),
        )
        session.add(row)
        session.flush()
        return _record_of(row)


def get(store: Store, project_id: str, prompt_set_id: str) -> PromptSetRecord | None:
    """The prompt set, or None when the project has no such set."""
    with store.read() as session:
        row = _row(session, project_id, prompt_set_id)
        return None if row is None else _record_of(row)


def list_prompt_sets(
    store: Store, project_id: str, *, after_id: str | None = None, limit: int = 20
) -> Slice[PromptSetRecord]:
    """The project's prompt sets, newest first, older than `after_id`."""
    query = sa.select(PromptSet).where(PromptSet.project_id == project_id).order_by(PromptSet.id.desc())
    if after_id is not None:
        query = query.where(PromptSet.id < after_id)
    with store.read() as session:
        rows = session.scalars(query.limit(limit + 1)).all()
        return Slice(tuple(_record_of(row) for row in rows[:limit]), has_more=len(rows) > limit)


def known_files(store: Store, sha256s: Sequence[str]) -> set[str]:
    """Those of the hashes that are the hash of some prompt set's file, in any project."""
    parts = (sha256s[start : start + 1000] for start in range(0, len(sha256s), 1000))
    with store.read() as session:
        named = (sa.select(PromptSet.file_sha256).where(PromptSet.file_sha256.in_(part)) for part in parts)
        return {found for query in named for found in session.scalars(query)}


def _row(session: Session, project_id: str, prompt_set_id: str) -> PromptSet | None:
    query = sa.select(PromptSet).where(PromptSet.id == prompt_set_id, PromptSet.project_id == project_id)
    return session.scalars(query).one_or_none()


def _record_of(row: PromptSet) -> PromptSetRecord:
    return PromptSetRecord.model_validate({field: getattr(row, field) for field in PromptSetRecord.model_fields})
