"""Webhooks and their deliveries over HTTP."""

import json
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, StringConstraints, field_validator

from alignment_core.spec.rewards import PRINTED_ASCII
from service.api.schemas.base import Entry, RequestBody, Resource, with_example
from service.api.schemas.texts import Text
from service.api.schemas.webhook_examples import DELIVERY_EXAMPLE, WEBHOOK_EXAMPLE
from service.store.records.webhooks import DeliveryRecord, DeliveryState, DisabledBecause, WebhookRecord
from service.store.webhook_events import EventType

REQUEST_EXAMPLE: dict[str, Any] = {
    "url": "https://hooks.example.org/attune",
    "events": ["job.succeeded", "job.failed", "champion.changed"],
    "description": "the team's channel",
}
ROTATE_EXAMPLE: dict[str, Any] = {"grace_seconds": 86_400}
SECRET_EXAMPLE = "whsec_" + "C2FVsBQIhrscChlQIMV+b5sSYspob7oD"

Url = Annotated[str, StringConstraints(max_length=2000, pattern=PRINTED_ASCII)]


class WebhookRequest(RequestBody):
    """Where events are posted, and which."""

    model_config = ConfigDict(json_schema_extra={"examples": [REQUEST_EXAMPLE]})

    url: Url = Field(
        description="https, on a host with public addresses, unless the server's owner lets webhooks have private ones. "
        "Redirects are not followed.",
        examples=["https://hooks.example.org/attune"],
    )
    events: list[EventType] | None = Field(
        None,
        min_length=1,
        max_length=100,
        description="Types of events; all, and those that are yet to come, when null.",
    )
    description: Text | None = Field(None, description="What it is for, for people.")
    enabled: bool = Field(True, description="Whether anything is sent. What happens while it is off is not told later.")

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        try:
            parts = urlsplit(url)
            host, _ = parts.hostname, parts.port
        except ValueError as error:
            raise ValueError(f"expected https://HOST[:PORT]/PATH: {error}") from error
        if not host or parts.scheme not in ("https", "http"):
            raise ValueError("expected https://HOST[:PORT]/PATH")
        if parts.username is not None or parts.password is not None or parts.fragment:
            raise ValueError("expected no user and no fragment: requests are signed")
        return url


class RotateSecretRequest(RequestBody):
    """How long both secrets sign."""

    model_config = ConfigDict(json_schema_extra={"examples": [ROTATE_EXAMPLE]})

    grace_seconds: int = Field(
        86_400, ge=0, le=30 * 86_400, description="Requests carry the signature of the old secret too for so long."
    )


class Webhook(Entry):
    """An address that events of the project are posted to, without its secret, which nobody can read again."""

    model_config = with_example(WEBHOOK_EXAMPLE)

    object: Literal["webhook"] = "webhook"
    url: str
    events: list[EventType] | None
    description: str | None
    enabled: bool
    disabled_because: DisabledBecause | None = Field(
        description="`asked`: by its owner; `gone`: it answered 410; `failing`: it gave no good answer for days."
    )
    failing_since: datetime | None = Field(description="The first failure since the last good answer.")
    old_secret_until: datetime | None = Field(description="Until when the secret before signs too.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, webhook: WebhookRecord) -> "Webhook":
        return cls.model_validate(_shown(webhook))


class NewWebhook(Webhook):
    """A webhook with its secret: this is the only time that it is shown."""

    model_config = with_example({**WEBHOOK_EXAMPLE, "secret": SECRET_EXAMPLE})

    secret: str = Field(description="What the receiver verifies signatures with.")

    @classmethod
    def made(cls, secret: str, webhook: WebhookRecord) -> "NewWebhook":
        return cls.model_validate({**_shown(webhook), "secret": secret})


def _shown(webhook: WebhookRecord) -> dict[str, Any]:
    return {**webhook.model_dump(exclude={"project_id", "event_types"}), "events": webhook.event_types}


class DeliveryTry(Resource):
    """One request, and what came of it."""

    time: datetime
    status: int | None = Field(description="Null where there was no answer.")
    milliseconds: int
    error: str | None = Field(description="Why there was no answer, or none that counts.")
    answer: str = Field(description="The beginning of the answer's body, at most 500 characters.")


class Delivery(Entry):
    """An event for one webhook; `id` is the `webhook-id` of its requests."""

    model_config = with_example(DELIVERY_EXAMPLE)

    object: Literal["webhook_delivery"] = "webhook_delivery"
    webhook_id: str
    type: str
    state: DeliveryState = Field(
        description="`failed`: given up. A webhook that is off keeps its pending ones waiting."
    )
    attempts: int = Field(description="Requests that were begun.")
    next_try_at: datetime | None = Field(description="Null where there is none to come.")
    tries: list[DeliveryTry] = Field(description="The last twenty, oldest first.")
    payload: dict[str, Any] = Field(description="What is sent.")
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, delivery: DeliveryRecord) -> "Delivery":
        shown = delivery.model_dump(exclude={"project_id", "body", "attempt", "due_at"})
        return cls.model_validate(
            {
                **shown,
                "attempts": delivery.attempt,
                "next_try_at": delivery.due_at,
                "payload": json.loads(delivery.body),
            }
        )
