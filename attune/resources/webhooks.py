"""Webhooks and what they were sent."""

from datetime import datetime
from typing import Any

from attune.resources.base import Resource


class Webhook(Resource):
    """An address that events of the project are posted to; `events` None is all of them."""

    id: str
    url: str
    events: list[str] | None
    description: str | None
    enabled: bool
    disabled_because: str | None
    failing_since: datetime | None
    old_secret_until: datetime | None
    created_at: datetime
    updated_at: datetime


class NewWebhook(Webhook):
    """A webhook with its secret, which is shown this once."""

    secret: str


class DeliveryTry(Resource):
    """One request; `status` is None where there was no answer."""

    time: datetime
    status: int | None
    milliseconds: int
    error: str | None
    answer: str


class Delivery(Resource):
    """An event for one webhook, with the last of its tries."""

    id: str
    webhook_id: str
    type: str
    state: str
    attempts: int
    next_try_at: datetime | None
    tries: list[DeliveryTry]
    payload: dict[str, Any]
    created_at: datetime
    ended_at: datetime | None
