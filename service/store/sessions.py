"""Sessions of browsers: a key is shown once, and a random token stands in for it until the session ends.

A session ends when its owner signs out, when nobody has used it for a while, after a time in any case, and with its key. Its
row goes then; the database keeps the token's hash alone. The token holds 256 random bits, so a plain SHA-256 will do.
"""

import hashlib
import secrets
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.store.database import Store, now
from service.store.ids import new_id
from service.store.models import ApiKey, BrowserSession
from service.store.projects import NOTED_EVERY
from service.store.records.base import Slice
from service.store.records.projects import ApiKeyRecord, SessionRecord

log = structlog.get_logger()

MOST_OF_A_KEY = 50
"""Sessions of one key: another ends the one that was used the longest time ago."""


def open_session(
    store: Store, key: ApiKeyRecord, *, lifetime: timedelta, remote: str | None = None
) -> tuple[str, SessionRecord]:
    """A new session of a key that was just checked, and its token, which is not stored."""
    token = secrets.token_urlsafe(32)
    with store.write() as session:
        time = now(session)
        _make_room(session, key.id)
        row = BrowserSession(
            id=new_id("ses"),
            project_id=key.project_id,
            key_id=key.id,
            token_sha256=_hash(token),
            remote=remote,
            created_at=time,
            last_used_at=time,
            expires_at=min(time + lifetime, key.expires_at or time + lifetime),
        )
        session.add(row)
        session.flush()
        return token, SessionRecord.model_validate(row)


def _make_room(session: Session, key_id: str) -> None:
    mine = sa.select(BrowserSession.id).where(BrowserSession.key_id == key_id)
    latest = mine.order_by(BrowserSession.last_used_at.desc(), BrowserSession.id.desc())
    over = session.scalars(latest.offset(MOST_OF_A_KEY - 1)).all()
    session.execute(sa.delete(BrowserSession).where(BrowserSession.id.in_(over)))


def of_token(store: Store, token: str, idle: timedelta) -> tuple[SessionRecord, ApiKeyRecord] | None:
    """The session that a cookie names and its key, if both are good now; notes that it was used."""
    return _good(store, BrowserSession.token_sha256 == _hash(token), idle, is_use=True)


def of_id(store: Store, session_id: str, idle: timedelta) -> tuple[SessionRecord, ApiKeyRecord] | None:
    """The same by its id, for a link that was made in it: to follow one is no use of the session."""
    return _good(store, BrowserSession.id == session_id, idle, is_use=False)


def _good(
    store: Store, is_wanted: sa.ColumnElement[bool], idle: timedelta, *, is_use: bool
) -> tuple[SessionRecord, ApiKeyRecord] | None:
    query = sa.select(BrowserSession, ApiKey).join(ApiKey, ApiKey.id == BrowserSession.key_id)
    with store.read() as session:
        found = session.execute(query.where(is_wanted, ApiKey.revoked_at.is_(None))).one_or_none()
        if found is None:
            return None
        row, key, time = *found, now(session)
        if row.expires_at <= time or row.last_used_at + idle <= time:
            return None
        if key.expires_at is not None and key.expires_at <= time:
            return None
        records = SessionRecord.model_validate(row), ApiKeyRecord.model_validate(key)
    if is_use and time - records[0].last_used_at >= min(NOTED_EVERY, idle / 4):
        _note_use(store, records[0].id, time)
    return records


def page_of(
    store: Store, project_id: str, idle: timedelta, *, key_id: str | None, after_id: str | None, limit: int
) -> Slice[SessionRecord]:
    """Sessions of the project, or of one key of it, that have not ended; newest first."""
    query = sa.select(BrowserSession).where(BrowserSession.project_id == project_id).order_by(BrowserSession.id.desc())
    query = query if key_id is None else query.where(BrowserSession.key_id == key_id)
    query = query if after_id is None else query.where(BrowserSession.id < after_id)
    with store.read() as session:
        time = now(session)
        live = query.where(BrowserSession.expires_at > time, BrowserSession.last_used_at > time - idle)
        rows = session.scalars(live.limit(limit + 1)).all()
        return Slice(tuple(map(SessionRecord.model_validate, rows[:limit])), has_more=len(rows) > limit)


def end(store: Store, project_id: str, session_id: str, *, key_id: str | None = None) -> bool:
    """End a session of the project, or of one key of it; False where there is none."""
    wanted = sa.delete(BrowserSession).where(BrowserSession.id == session_id, BrowserSession.project_id == project_id)
    wanted = wanted if key_id is None else wanted.where(BrowserSession.key_id == key_id)
    with store.write() as session:
        return session.scalars(wanted.returning(BrowserSession.id)).one_or_none() is not None


def forget_ended(store: Store, idle: timedelta) -> int:
    """Take out the rows of sessions whose time is over, for the owner's sweep; how many went."""
    with store.write() as session:
        time = now(session)
        over = sa.or_(BrowserSession.expires_at <= time, BrowserSession.last_used_at <= time - idle)
        return len(session.scalars(sa.delete(BrowserSession).where(over).returning(BrowserSession.id)).all())


def _note_use(store: Store, session_id: str, time: datetime) -> None:
    """A database that takes no writes just now still answers what is asked of it."""
    try:
        with store.write() as session:
            session.execute(sa.update(BrowserSession).where(BrowserSession.id == session_id).values(last_used_at=time))
    except DBAPIError as error:
        log.warning("use_not_noted", session_id=session_id, error=repr(error))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()
