"""Files on their way, piece by piece: what has arrived stays, and the next piece goes where the last one ended.

`receiving -> finishing -> finished | refused`. A piece is an object of its own, which counts once its row is there: of two that are sent for
one place the first one counts. What a whole file becomes is made under an id that is set aside, so that it is made once.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import audit, idempotency, keys, quotas
from service.store.database import Store, now
from service.store.ids import Prefix, new_id
from service.store.models import Upload, UploadPiece
from service.store.records.base import Slice
from service.store.records.uploads import UploadPurpose, UploadRecord
from service.store.removals import to_remove

BECOMES: dict[UploadPurpose, Prefix] = {"dataset": "ds", "weights": "wts", "prompt_set": "ps"}
FINISHING = timedelta(minutes=2)  # who has not said for this long that it is at work has died


class OutOfPlaceError(Exception):
    """The upload is not where the sender, or who wants to finish or delete it, takes it to be; `found` says where it is."""

    def __init__(self, found: UploadRecord) -> None:
        super().__init__(f"upload {found.id} is {found.state} at {found.received_bytes} of {found.size_bytes} bytes")
        self.found = found


def create(
    store: Store,
    *,
    project_id: str,
    purpose: UploadPurpose,
    filename: str,
    size_bytes: int,
    sha256: str | None,
    said: dict[str, Any],
    keep: timedelta,
    upload_id: str | None = None,
) -> UploadRecord:
    """An upload of which nothing has arrived, kept for so long after each piece; raises `QuotaExceeded`: all of it counts from now on."""
    with store.write() as session:
        if upload_id is not None and (existing := _row(session, project_id, upload_id)) is not None:
            return _record_of(existing)
        quotas.admit_bytes(session, project_id, size_bytes)
        time = now(session)
        row = Upload(
            id=upload_id or new_id("upl"),
            project_id=project_id,
            purpose=purpose,
            filename=filename,
            size_bytes=size_bytes,
            sha256=sha256,
            said=said,
            state="receiving",
            received_bytes=0,
            num_pieces=0,
            reserved_bytes=size_bytes,
            attempt=0,
            created_at=time,
            updated_at=time,
            expires_at=time + keep,
        )
        session.add(row)
        session.flush()
        return _record_of(row)


def get(store: Store, project_id: str, upload_id: str) -> UploadRecord | None:
    """The upload, or None when the project has no such upload."""
    with store.read() as session:
        row = _row(session, project_id, upload_id)
        return None if row is None else _record_of(row)


def list_unfinished(
    store: Store, project_id: str, *, after_id: str | None = None, limit: int = 20
) -> Slice[UploadRecord]:
    """The project's uploads of which nothing was made yet, newest first, older than `after_id`."""
    unfinished = (Upload.project_id == project_id, Upload.state != "finished")
    query = sa.select(Upload).where(*unfinished).order_by(Upload.id.desc()).limit(limit + 1)
    if after_id is not None:
        query = query.where(Upload.id < after_id)
    with store.read() as session:
        rows = session.scalars(query).all()
        return Slice(tuple(_record_of(row) for row in rows[:limit]), has_more=len(rows) > limit)


def add_piece(
    store: Store, upload: UploadRecord, *, start: int, size_bytes: int, object_key: str, keep: timedelta
) -> UploadRecord | None:
    """Note that the bytes from `start` on are in the object store.

    None when the upload is gone; raises `OutOfPlaceError` where they are not the next. Then the caller removes the object, and what it
    leaves goes with the upload.
    """
    with store.write() as session:
        row, time = _row(session, upload.project_id, upload.id, lock=True), now(session)
        found = None if row is None else _record_of(row)
        if row is not None and row.state == "receiving" and row.received_bytes == start:
            row.received_bytes, row.num_pieces = start + size_bytes, row.num_pieces + 1
            row.updated_at, row.expires_at = time, time + keep
            session.add(UploadPiece(upload_id=row.id, start=start, size_bytes=size_bytes, object_key=object_key))
            session.flush()
            return _record_of(row)
    if found is not None:
        raise OutOfPlaceError(found)
    return None


def pieces(store: Store, upload_id: str) -> tuple[str, ...]:
    """The keys of its pieces, in their order."""
    query = sa.select(UploadPiece.object_key).where(UploadPiece.upload_id == upload_id).order_by(UploadPiece.start)
    with store.read() as session:
        return tuple(session.scalars(query))


# --- what a whole file becomes -------------------------------------------------------------------------------------


def begin_finish(store: Store, project_id: str, upload_id: str) -> UploadRecord | None:
    """Take it on to make something of it under its `resource_id`; one that is finished or refused is returned as it is.

    None when the upload is gone. Raises `OutOfPlaceError` while bytes are missing or somebody else is at it.
    """
    with audit.beside(), store.write() as session:
        row, time = _row(session, project_id, upload_id, lock=True), now(session)
        if row is None or row.state in ("finished", "refused"):
            return None if row is None else _record_of(row)
        is_at_work = row.state == "finishing" and row.updated_at > time - FINISHING
        if is_at_work or row.received_bytes < row.size_bytes:
            raise OutOfPlaceError(_record_of(row))
        row.state, row.updated_at = "finishing", time
        row.attempt += 1
        row.resource_id = row.resource_id or new_id(BECOMES[row.purpose])
        session.flush()
        return _record_of(row)


def still_finishing(store: Store, upload: UploadRecord) -> None:
    """Say that whoever took it on is at work on it, so that nobody else takes it for one that was left."""
    with store.write() as session:
        mine = (Upload.id == upload.id, Upload.state == "finishing", Upload.attempt == upload.attempt)
        session.execute(sa.update(Upload).where(*mine).values(updated_at=now(session)))


def release(session: Session, upload_id: str | None) -> None:
    """Its bytes no longer count: what is made of it does, from this transaction on."""
    if upload_id is not None:
        session.execute(sa.update(Upload).where(Upload.id == upload_id).values(reserved_bytes=0))


def finish(store: Store, upload: UploadRecord) -> None:
    """It has become what it was for: its pieces go."""
    with store.write() as session:
        row = _row(session, upload.project_id, upload.id, lock=True)
        if row is not None and row.state != "finished" and row.resource_id in (None, upload.resource_id):
            row.state, row.updated_at, row.reserved_bytes = "finished", now(session), 0
            row.resource_id = upload.resource_id  # also where somebody took its maker for dead, and gave it back
            _remove_pieces(session, row)


def refuse(store: Store, upload: UploadRecord, refusal: dict[str, Any]) -> None:
    """Nothing can ever be made of what arrived, since no byte of it can change: its pieces go, and `refusal` is told whoever asks again."""
    with audit.beside(), store.write() as session:
        row = _row(session, upload.project_id, upload.id, lock=True)
        if row is not None and (row.state, row.attempt) == ("finishing", upload.attempt):
            row.state, row.updated_at, row.reserved_bytes = "refused", now(session), 0
            row.resource_id, row.refusal = None, refusal
            _remove_pieces(session, row)


def give_back(store: Store, upload: UploadRecord) -> None:
    """Nothing was made of it, for want of a store or a quota: it may be finished again, as something else, or deleted."""
    with audit.beside(), store.write() as session:
        row = _row(session, upload.project_id, upload.id, lock=True)
        if row is not None and (row.state, row.attempt) == ("finishing", upload.attempt):
            row.state, row.updated_at = "receiving", now(session)
            row.resource_id, row.reserved_bytes = None, row.size_bytes


# --- its end -------------------------------------------------------------------------------------------------------


def delete(store: Store, project_id: str, upload_id: str) -> str | None:
    """Delete an upload with what has arrived of it; what it has become stays. Raises `OutOfPlaceError` while that is being made."""
    with store.write() as session:
        row, time = _row(session, project_id, upload_id, lock=True), now(session)
        if row is None:
            return None
        if row.state == "finishing" and row.updated_at > time - FINISHING:
            raise OutOfPlaceError(_record_of(row))
        _remove(session, row)
        return upload_id


def forget_expired(store: Store) -> int:
    """Delete uploads whose time is over, with what has arrived of them; returns how many."""
    with store.write() as session:
        time = now(session)
        is_at_work = sa.and_(Upload.state == "finishing", Upload.updated_at > time - FINISHING)
        expired = sa.select(Upload).where(Upload.expires_at < time, ~is_at_work).with_for_update(skip_locked=True)
        rows = session.scalars(expired).all()
        for row in rows:
            _remove(session, row)
        return len(rows)


def forget_those_of(session: Session, project_id: str, resource_ids: Sequence[str]) -> None:
    """Delete what has become one of these, which are deleted."""
    became = sa.select(Upload).where(Upload.project_id == project_id, Upload.resource_id.in_(resource_ids))
    for row in session.scalars(became.with_for_update()):
        _remove(session, row)


def _remove_pieces(session: Session, row: Upload) -> None:
    session.execute(sa.delete(UploadPiece).where(UploadPiece.upload_id == row.id))
    to_remove(session, [keys.upload_prefix(row.project_id, row.id)], now(session))


def _remove(session: Session, row: Upload) -> None:
    session.delete(row)
    idempotency.forget_those_of(session, row.project_id, [row.id])
    to_remove(session, [keys.upload_prefix(row.project_id, row.id)], now(session))


def _row(session: Session, project_id: str, upload_id: str, *, lock: bool = False) -> Upload | None:
    query = sa.select(Upload).where(Upload.id == upload_id, Upload.project_id == project_id)
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


def _record_of(row: Upload) -> UploadRecord:
    return UploadRecord.model_validate({field: getattr(row, field) for field in UploadRecord.model_fields})
