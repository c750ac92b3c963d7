"""Webhooks and their deliveries."""

from datetime import datetime
from typing import Literal

from service.store.records.base import Record

DeliveryState = Literal["pending", "delivered", "failed"]
DisabledBecause = Literal["asked", "gone", "failing"]  # by its owner; by a 410; after days without a good answer


class WebhookRecord(Record):
    """An address that events are posted to, without its secret, which nobody can read again."""

    id: str
    project_id: str
    url: str
    description: str | None
    event_types: list[str] | None
    enabled: bool
    disabled_because: DisabledBecause | None
    old_secret_until: datetime | None
    failing_since: datetime | None
    created_at: datetime
    updated_at: datetime


class TryRecord(Record):
    """One request of a delivery: `status` is null where there was no answer, and `error` says why."""

    time: datetime
    status: int | None
    milliseconds: int
    error: str | None
    answer: str


class DeliveryRecord(Record):
    id: str
    webhook_id: str
    project_id: str
    type: str
    body: str
    state: DeliveryState
    attempt: int
    tries: list[TryRecord]
    due_at: datetime | None
    created_at: datetime
    ended_at: datetime | None


class DeliveryClaim(Record):
    """A delivery to send now, and what it takes: the secrets are sealed, the newest first. `attempt` fences what is recorded."""

    id: str
    webhook_id: str
    attempt: int
    url: str
    body: str
    secrets: tuple[str, ...]
    project_id: str
    created_at: datetime
    traceparent: str | None = None  # of what asked for it, where that was traced
