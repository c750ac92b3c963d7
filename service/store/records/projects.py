"""Projects, keys, sessions and the audit log."""

from datetime import datetime
from typing import Literal

from service.store.records.base import Record

Outcome = Literal["done", "refused", "failed"]
Scope = Literal["read", "submit", "admin"]  # what a key may; each may what those before it may


class ProjectRecord(Record):
    id: str
    name: str
    created_at: datetime


class ApiKeyRecord(Record):
    """An API key without its secret, which nobody can read again."""

    id: str
    project_id: str
    name: str
    prefix: str
    scope: Scope
    rotated_from_id: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class SessionRecord(Record):
    """A browser that showed a key; its token is nowhere but in the browser."""

    id: str
    project_id: str
    key_id: str
    remote: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


class AuditRecord(Record):
    """Something that was done, or refused, in a project. `key_id` is null where no key was asked for."""

    id: str
    project_id: str
    time: datetime
    key_id: str | None
    remote: str | None
    action: str
    object_ids: list[str]
    outcome: Outcome
    status: int | None
    request_id: str | None
