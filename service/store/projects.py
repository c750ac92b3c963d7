"""Projects and their API keys. A key is shown once; the database keeps its hash and a prefix to tell keys apart.

Keys hold 256 random bits, so a plain SHA-256 is as good as a slow hash would be.
"""

import hashlib
import hmac
import secrets
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from service.store.database import Store, now
from service.store.ids import new_id
from service.store.models import ApiKey, BrowserSession, Project
from service.store.records.base import Slice
from service.store.records.projects import ApiKeyRecord, ProjectRecord, Scope

log = structlog.get_logger()

DEFAULT_PROJECT_ID = "proj_default"
"""Whose requests come without a key, where keys are not required. A migration creates it."""

NOTED_EVERY = timedelta(minutes=1)
"""How fresh a key's `last_used_at` is kept: a write with every request would cost more than it tells."""

_PREFIX_CHARACTERS = len("attune_") + 12


def create_project(store: Store, name: str) -> ProjectRecord:
    with store.write() as session:
        row = Project(id=new_id("proj"), name=name, created_at=now(session))
        session.add(row)
        session.flush()
        return ProjectRecord.model_validate(row)


def get_project(store: Store, project_id: str) -> ProjectRecord | None:
    with store.read() as session:
        row = session.get(Project, project_id)
        return None if row is None else ProjectRecord.model_validate(row)


def list_projects(store: Store) -> tuple[ProjectRecord, ...]:
    """Every project, the oldest first."""
    with store.read() as session:
        rows = session.scalars(sa.select(Project).order_by(Project.created_at, Project.id))
        return tuple(ProjectRecord.model_validate(row) for row in rows)


def create_key(
    store: Store, project_id: str, name: str, *, scope: Scope = "admin", lifetime: timedelta | None = None
) -> tuple[str, ApiKeyRecord]:
    """A new key and its record. The key is not stored: this is the only time that it can be shown."""
    with store.write() as session:
        time = now(session)
        expires_at = None if lifetime is None else time + lifetime
        return _added(session, project_id=project_id, name=name, scope=scope, created_at=time, expires_at=expires_at)


def authenticate(store: Store, key: str) -> ApiKeyRecord | None:
    """The key's record if it opens anything now, and notes that it was used; takes the same time for every wrong secret."""
    if "\0" in key or not key.isascii():
        return None
    query = sa.select(ApiKey).where(ApiKey.prefix == prefix_of(key), ApiKey.revoked_at.is_(None))
    with store.read() as session:
        found = session.scalars(query).one_or_none()
        matches = hmac.compare_digest(_hash(key), found.secret_sha256 if found else _hash(""))
        if found is None or not matches:
            return None
        time = now(session)
        if found.expires_at is not None and found.expires_at <= time:
            return None
        record = ApiKeyRecord.model_validate(found)
    if record.last_used_at is None or time - record.last_used_at >= NOTED_EVERY:
        _note_use(store, record.id, time)
    return record


def prefix_of(key: str) -> str:
    """What keys are told apart by."""
    return key[:_PREFIX_CHARACTERS]


def get_key(store: Store, project_id: str, key_id: str) -> ApiKeyRecord | None:
    with store.read() as session:
        row = session.scalars(_key(project_id, key_id)).one_or_none()
        return None if row is None else ApiKeyRecord.model_validate(row)


def active_key(store: Store, key_id: str) -> ApiKeyRecord | None:
    """The key if it opens anything now, for who was let in by it before."""
    with store.read() as session:
        row = session.scalars(sa.select(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None))).one_or_none()
        is_over = row is not None and row.expires_at is not None and row.expires_at <= now(session)
        return None if row is None or is_over else ApiKeyRecord.model_validate(row)


def list_keys(store: Store, project_id: str) -> tuple[ApiKeyRecord, ...]:
    """The project's keys, revoked and expired ones included, the oldest first."""
    with store.read() as session:
        rows = session.scalars(sa.select(ApiKey).where(ApiKey.project_id == project_id).order_by(ApiKey.id))
        return tuple(ApiKeyRecord.model_validate(row) for row in rows)


def page_of_keys(store: Store, project_id: str, *, after_id: str | None, limit: int) -> Slice[ApiKeyRecord]:
    """The same, newest first, older than `after_id`."""
    query = sa.select(ApiKey).where(ApiKey.project_id == project_id).order_by(ApiKey.id.desc()).limit(limit + 1)
    with store.read() as session:
        rows = session.scalars(query if after_id is None else query.where(ApiKey.id < after_id)).all()
        return Slice(tuple(map(ApiKeyRecord.model_validate, rows[:limit])), has_more=len(rows) > limit)


def revoke_key(store: Store, project_id: str, key_id: str) -> bool:
    """Refuse the key from now on, and end its sessions; False when the project has no such key, or it was revoked before."""
    with store.write() as session:
        wanted = (ApiKey.id == key_id, ApiKey.project_id == project_id, ApiKey.revoked_at.is_(None))
        revoked = sa.update(ApiKey).where(*wanted).values(revoked_at=now(session)).returning(ApiKey.id)
        if session.scalars(revoked).one_or_none() is None:
            return False
        session.execute(sa.delete(BrowserSession).where(BrowserSession.key_id == key_id))
        return True


def rotate_key(store: Store, project_id: str, key_id: str, grace: timedelta) -> tuple[str, ApiKeyRecord] | None:
    """A new key in place of one that is still good, which goes on for `grace`; None when there is no such key.

    The new one has the name and the scope of the old one, and lasts as long as that was made to last. Sessions of the old one
    end now: whoever signed in does so again with the new one.
    """
    with store.write() as session:
        row, time = session.scalars(_key(project_id, key_id).with_for_update()).one_or_none(), now(session)
        if row is None or row.revoked_at is not None or (row.expires_at is not None and row.expires_at <= time):
            return None
        lifetime = None if row.expires_at is None else row.expires_at - row.created_at
        session.execute(sa.delete(BrowserSession).where(BrowserSession.key_id == row.id))
        row.expires_at = time + grace if row.expires_at is None else min(row.expires_at, time + grace)
        return _added(
            session,
            project_id=project_id,
            name=row.name,
            scope=row.scope,
            rotated_from_id=row.id,
            created_at=time,
            expires_at=None if lifetime is None else time + lifetime,
        )


def _added(session: Session, **values: object) -> tuple[str, ApiKeyRecord]:
    key = f"attune_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"
    row = ApiKey(id=new_id("key"), prefix=prefix_of(key), secret_sha256=_hash(key), **values)
    session.add(row)
    session.flush()
    return key, ApiKeyRecord.model_validate(row)


def _key(project_id: str, key_id: str) -> sa.Select[ApiKey]:
    return sa.select(ApiKey).where(ApiKey.id == key_id, ApiKey.project_id == project_id)


def _note_use(store: Store, key_id: str, time: datetime) -> None:
    """A database that takes no writes just now still answers what is asked of it."""
    try:
        with store.write() as session:
            session.execute(sa.update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=time))
    except DBAPIError as error:
        log.warning("use_not_noted", key_id=key_id, error=repr(error))


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
