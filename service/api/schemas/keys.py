"""API keys as the API shows them, and as it is asked for them."""

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from service.api.schemas.base import Entry, RequestBody, with_example
from service.api.schemas.texts import Text
from service.store.records.projects import ApiKeyRecord, Scope

KEY_ID = "key_01kaf0e4y6z8a0b2c4d6e8f0g2"
CREATE_EXAMPLE: dict[str, Any] = {"name": "build server", "scope": "submit", "expires_in_days": 90}
ROTATE_EXAMPLE: dict[str, Any] = {"grace_seconds": 86_400}
KEY_EXAMPLE: dict[str, Any] = {
    "id": KEY_ID,
    "object": "api_key",
    "name": "build server",
    "prefix": "attune_9f2c6d1e0b7a",
    "scope": "submit",
    "status": "active",
    "rotated_from_id": None,
    "created_at": "2026-11-20T09:10:00Z",
    "expires_at": "2027-02-18T09:10:00Z",
    "last_used_at": "2026-11-20T09:15:00Z",
    "revoked_at": None,
}
NEW_KEY_EXAMPLE: dict[str, Any] = {
    **KEY_EXAMPLE,
    "last_used_at": None,
    "key": "attune_9f2c6d1e0b7a_Zk3vQ1xT8mYw5cRj2HnLb7PsGd0fUa9eWi4oKt6yXuM",
}


class KeyRequest(RequestBody):
    """What the key is for, what it may, and how long."""

    model_config = ConfigDict(json_schema_extra={"examples": [CREATE_EXAMPLE]})

    name: Text = Field(min_length=1, description="What the key is for, for people.")
    scope: Scope = Field(
        "submit",
        description="`read` looks and downloads, `submit` also makes, changes and deletes, `admin` also deals in keys "
        "and reads the audit log.",
    )
    expires_in_days: int | None = Field(None, ge=1, le=3650, description="Refused after so many days; never when null.")


class RotateRequest(RequestBody):
    """How long the old key goes on beside the new one."""

    model_config = ConfigDict(json_schema_extra={"examples": [ROTATE_EXAMPLE]})

    grace_seconds: int = Field(
        86_400, ge=0, le=30 * 86_400, description="The old key is good for so long, and never longer than it was."
    )


class ApiKey(Entry):
    """A key without its secret, which nobody can read again."""

    model_config = with_example(KEY_EXAMPLE)

    object: Literal["api_key"] = "api_key"
    name: str
    prefix: str = Field(description="What the key begins with, to tell keys apart.")
    scope: Scope
    status: Literal["active", "expired", "revoked"]
    rotated_from_id: str | None = Field(description="The key that this one took the place of.")
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ApiKeyRecord) -> "ApiKey":
        return cls.model_validate(_shown(key))


class NewKey(ApiKey):
    """A key with its secret: this is the only time that it is shown."""

    model_config = with_example(NEW_KEY_EXAMPLE)

    key: str = Field(description="What to send as `Authorization: Bearer KEY`.")

    @classmethod
    def made(cls, secret: str, key: ApiKeyRecord) -> "NewKey":
        return cls.model_validate({**_shown(key), "key": secret})


def _shown(key: ApiKeyRecord) -> dict[str, Any]:
    is_over = key.expires_at is not None and key.expires_at <= datetime.now(UTC)
    status = "revoked" if key.revoked_at is not None else "expired" if is_over else "active"
    return {**key.model_dump(exclude={"project_id"}), "status": status}
