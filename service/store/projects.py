"""Projects and their API keys. A key is shown once; the database keeps its hash and a prefix to tell keys apart.

Keys hold 256 random bits, so a plain SHA-256 is as good as a slow hash would be.
"""

import hashlib
import hmac
import secrets

import sqlalchemy as sa

from service.store.database import Store, now
from service.store.ids import new_id
from service.store.models import ApiKey, Project
from service.store.records import ApiKeyRecord, ProjectRecord

DEFAULT_PROJECT_ID = "proj_default"
"""Whose requests come without a key, where keys are not required. A migration creates it."""

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


def create_key(store: Store, project_id: str, name: str) -> tuple[str, ApiKeyRecord]:
    """A new key and its record. The key is not stored: this is the only time that it can be shown."""
    key = f"attune_{secrets.token_hex(6)}_{secrets.token_urlsafe(32)}"
    with store.write() as session:
        row = ApiKey(
            id=new_id("key"),
            project_id=project_id,
            name=name,
            prefix=key[:_PREFIX_CHARACTERS],
            secret_sha256=_hash(key),
            created_at=now(session),
        )
        session.add(row)
        session.flush()
        return key, _record_of(row)


def authenticate(store: Store, key: str) -> ProjectRecord | None:
    """The project whose key this is, or None; takes the same time for every wrong secret."""
    if "\0" in key or not key.isascii():
        return None
    query = (
        sa.select(ApiKey.secret_sha256, Project)
        .join(Project, Project.id == ApiKey.project_id)
        .where(ApiKey.prefix == key[:_PREFIX_CHARACTERS], ApiKey.revoked_at.is_(None))
    )
    with store.read() as session:
        found = session.execute(query).one_or_none()
        expected = found[0] if found else _hash("")
        matches = hmac.compare_digest(_hash(key), expected)
        return ProjectRecord.model_validate(found[1]) if found and matches else None


def list_keys(store: Store, project_id: str) -> tuple[ApiKeyRecord, ...]:
    """The project's keys, revoked ones included, the oldest first."""
    with store.read() as session:
        rows = session.scalars(sa.select(ApiKey).where(ApiKey.project_id == project_id).order_by(ApiKey.id))
        return tuple(_record_of(row) for row in rows)


def revoke_key(store: Store, project_id: str, key_id: str) -> bool:
    """Refuse the key from now on; False when the project has no such key, or it was revoked before."""
    with store.write() as session:
        wanted = (ApiKey.id == key_id, ApiKey.project_id == project_id, ApiKey.revoked_at.is_(None))
        revoked = sa.update(ApiKey).where(*wanted).values(revoked_at=now(session)).returning(ApiKey.id)
        return session.scalars(revoked).one_or_none() is not None


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _record_of(row: ApiKey) -> ApiKeyRecord:
    return ApiKeyRecord(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        prefix=row.prefix,
        created_at=row.created_at,
        revoked_at=row.revoked_at,
    )
