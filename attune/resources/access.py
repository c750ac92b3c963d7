"""Keys, sessions, links, the audit log, and what a project may take and took."""

from datetime import datetime
from typing import Literal

from attune.resources.base import Resource


class Usage(Resource):
    """What the attempts of a project took that ended within a time."""

    since: datetime | None
    until: datetime | None
    num_attempts: int
    seconds: dict[str, float]
    process_seconds: float
    gpu_seconds: float
    stored_bytes: int


class ApiKey(Resource):
    """A key without its secret."""

    id: str
    name: str
    prefix: str
    scope: Literal["read", "submit", "admin"]
    status: Literal["active", "expired", "revoked"]
    rotated_from_id: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


class NewKey(ApiKey):
    """The one answer that shows `key`."""

    key: str


class BrowserSession(Resource):
    """A browser that signed in with a key."""

    id: str
    key_id: str
    remote: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


class SignedLink(Resource):
    """An address that needs no key until `expires_at`."""

    url: str
    expires_at: datetime


class AuditEntry(Resource):
    """Something that was asked of a project and would have changed it."""

    id: str
    time: datetime
    key_id: str | None
    remote: str | None
    action: str
    object_ids: list[str]
    outcome: Literal["done", "refused", "failed"]
    status: int | None
    request_id: str | None


class Quota(Resource):
    """What a project may take of one thing; `limit` is None where there is none."""

    id: str
    limit: float | None
    used: float
    resets_at: datetime | None
