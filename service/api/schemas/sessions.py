"""Sessions and links over HTTP."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from service.api.schemas.base import Entry, RequestBody, Resource, with_example
from service.api.schemas.keys import KEY_ID
from service.store.records.projects import ApiKeyRecord, Scope, SessionRecord

SESSION_ID = "ses_01kaf0e9y1b3d5f7h9k2m4p6r8"
SESSION_EXAMPLE: dict[str, Any] = {
    "id": SESSION_ID,
    "object": "session",
    "key_id": KEY_ID,
    "remote": "192.0.2.17",
    "created_at": "2026-11-20T09:10:00Z",
    "last_used_at": "2026-11-20T09:15:00Z",
    "expires_at": "2026-11-20T21:10:00Z",
}
CURRENT_EXAMPLE: dict[str, Any] = {
    **SESSION_EXAMPLE,
    "scope": "submit",
    "csrf_token": "5f2b8c0d9e7a46318c5d2e1f0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d4e3f2a1b",
}
PICTURE = "/v1/jobs/job_01kaf0h2v7x3m5q8r1s4t6w9yz/samples/smp_01kaf0nd3f5h7k9m1p3r5t7v9x.png"
LINK_REQUEST_EXAMPLE: dict[str, Any] = {"path": PICTURE, "expires_in": 300}
LINK_EXAMPLE: dict[str, Any] = {
    "object": "link",
    "url": f"{PICTURE}?link=lks_01kaf0e9y1b3d5f7h9k2m4p6r8.{KEY_ID}.1795166400.q0m3Tt2mDk6p4bV9cX1sJr7fZy8uNw5eHg2aLi0oQxE",
    "expires_at": "2026-11-20T09:20:00Z",
}


class Session(Entry):
    """A browser that signed in."""

    model_config = with_example(SESSION_EXAMPLE)

    object: Literal["session"] = "session"
    key_id: str = Field(description="The key that was shown; the session ends with it.")
    remote: str | None = Field(description="The address that it was opened from.")
    created_at: datetime
    last_used_at: datetime = Field(description="To the minute.")
    expires_at: datetime = Field(description="The end in any case; a session that nobody uses ends before.")

    @classmethod
    def of(cls, found: SessionRecord) -> "Session":
        return cls.model_validate(found.model_dump(exclude={"project_id"}))


class CurrentSession(Session):
    """The caller's own, with what its page has to send."""

    model_config = with_example(CURRENT_EXAMPLE)

    scope: Scope = Field(description="What the key may, and the session with it.")
    csrf_token: str = Field(description="Sent as `X-CSRF-Token` with everything but GET and HEAD.")

    @classmethod
    def current(cls, found: SessionRecord, key: ApiKeyRecord, csrf_token: str) -> "CurrentSession":
        own = {"scope": key.scope, "csrf_token": csrf_token}
        return cls.model_validate(found.model_dump(exclude={"project_id"}) | own)


class LinkRequest(RequestBody):
    """What is to be opened, and for how long."""

    model_config = ConfigDict(json_schema_extra={"examples": [LINK_REQUEST_EXAMPLE]})

    path: Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]+$", max_length=2000)] = Field(
        description="Path and parameters of a file, a picture, a download or a stream under `/v1`, as the API names them."
    )
    expires_in: int = Field(300, ge=1, le=3600, description="Seconds; a server may allow fewer.")


class SignedLink(Resource):
    """An address that needs no key for some minutes."""

    model_config = with_example(LINK_EXAMPLE)

    object: Literal["link"] = "link"
    url: str = Field(description="For GET alone. Whoever has it may read this one thing, so it is as secret as a key.")
    expires_at: datetime
