"""The audit log as the API shows it."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from service.api.schemas.base import Entry, with_example
from service.api.schemas.job_examples import JOB_ID
from service.api.schemas.keys import KEY_ID
from service.store.records.projects import AuditRecord, Outcome

AUDIT_EXAMPLE: dict[str, Any] = {
    "id": "aud_01kaf0h2v9z3m5q8r1s4t6w9yz",
    "object": "audit_entry",
    "time": "2026-11-20T09:15:00Z",
    "key_id": KEY_ID,
    "remote": "203.0.113.9",
    "action": "POST /v1/jobs",
    "object_ids": [JOB_ID],
    "outcome": "done",
    "status": None,
    "request_id": "req_9f2c6d1e0b7a4c3d8e5f0a1b",
}


class AuditEntry(Entry):
    """Something that was asked of the project and would have changed it."""

    model_config = with_example(AUDIT_EXAMPLE)

    object: Literal["audit_entry"] = "audit_entry"
    time: datetime
    key_id: str | None = Field(
        description="Whose; null without keys, and for what the server's owner did on its machine."
    )
    remote: str | None = Field(
        description="Where from, as far as the server's proxy settings tell; null on the machine."
    )
    action: str = Field(description="Verb and route, or the owner's command.")
    object_ids: list[str] = Field(description="What it was done to, and what it made.")
    outcome: Outcome = Field(
        description="`refused`: an answer of 4xx; `failed`: one of 5xx, maybe after a row with `done`."
    )
    status: int | None = Field(
        description="The answer's; null for a row that was written with the change, before the answer."
    )
    request_id: str | None

    @classmethod
    def of(cls, entry: AuditRecord) -> "AuditEntry":
        return cls.model_validate(entry.model_dump(exclude={"project_id"}))
