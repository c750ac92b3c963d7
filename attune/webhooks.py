"""Webhooks over HTTP. `client.webhooks` is one of these; it asks for a key with the scope `admin`.

made = client.webhooks.create("https://hooks.example.org/attune", events=["job.failed"])
print(made.secret)  # shown once
print(client.webhooks.wait(made.id, client.webhooks.test(made.id).id).state)
"""

import builtins
import time
from collections.abc import Iterator, Sequence
from typing import Literal

from attune.connection import Connection, segment
from attune.requests import given
from attune.resources.webhooks import Delivery, NewWebhook, Webhook

AGAIN_SECONDS = 0.5
DeliveryState = Literal["pending", "delivered", "failed"]


class Webhooks:
    """Who is told of what happens in the project. Every method raises `AttuneError` when the server says no or does not answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(
        self, url: str, *, events: Sequence[str] | None = None, description: str | None = None, enabled: bool = True
    ) -> NewWebhook:
        """Have events posted to an address, all of them when `events` is left out; the secret is in this answer alone."""
        body = _body(url, events, description, enabled)
        return NewWebhook.model_validate(self._connection.request("POST", "/v1/webhooks", json=body))

    def list(self) -> Iterator[Webhook]:
        """Webhooks, newest first, disabled ones too."""
        return (Webhook.model_validate(entry) for entry in self._connection.pages("/v1/webhooks", []))

    def get(self, webhook_id: str) -> Webhook:
        return Webhook.model_validate(self._connection.request("GET", _path(webhook_id)))

    def change(
        self,
        webhook_id: str,
        *,
        url: str,
        events: Sequence[str] | None = None,
        description: str | None = None,
        enabled: bool = True,
    ) -> Webhook:
        """Put these in place of what it had; the secret stays."""
        body = _body(url, events, description, enabled)
        return Webhook.model_validate(self._connection.request("PUT", _path(webhook_id), json=body))

    def delete(self, webhook_id: str) -> None:
        """Remove it, with the log of its deliveries."""
        self._connection.request("DELETE", _path(webhook_id))

    def rotate_secret(self, webhook_id: str, *, grace_seconds: int | None = None) -> NewWebhook:
        """A new secret; the old one signs beside it for `grace_seconds`, a day when left out."""
        body = given({"grace_seconds": grace_seconds})
        return NewWebhook.model_validate(self._connection.request("POST", f"{_path(webhook_id)}/rotate", json=body))

    def test(self, webhook_id: str) -> Delivery:
        """Have a `webhook.ping` sent, once; `wait` has what came of it."""
        return Delivery.model_validate(self._connection.request("POST", f"{_path(webhook_id)}/test"))

    def deliveries(self, webhook_id: str, *, state: DeliveryState | None = None) -> Iterator[Delivery]:
        """What was sent or is to be, newest first, page by page as they are needed."""
        filters: builtins.list[tuple[str, str]] = [] if state is None else [("state", state)]
        pages = self._connection.pages(f"{_path(webhook_id)}/deliveries", filters)
        return (Delivery.model_validate(entry) for entry in pages)

    def get_delivery(self, webhook_id: str, delivery_id: str) -> Delivery:
        return Delivery.model_validate(self._connection.request("GET", _delivery_path(webhook_id, delivery_id)))

    def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Send it again at once, under the same `webhook-id`."""
        path = f"{_delivery_path(webhook_id, delivery_id)}/redeliver"
        return Delivery.model_validate(self._connection.request("POST", path))

    def wait(self, webhook_id: str, delivery_id: str, timeout_seconds: float = 60.0) -> Delivery:
        """The delivery once it was tried for the first time; `TimeoutError` when no worker has done so by then."""
        deadline = time.monotonic() + timeout_seconds
        while not (found := self.get_delivery(webhook_id, delivery_id)).tries:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"delivery {delivery_id} has not been tried yet: does a worker run?")
            time.sleep(AGAIN_SECONDS)
        return found


def _body(url: str, events: Sequence[str] | None, description: str | None, enabled: bool) -> dict[str, object]:
    wanted = None if events is None else list(events)
    return {"url": url, "events": wanted, "description": description, "enabled": enabled}


def _path(webhook_id: str) -> str:
    return f"/v1/webhooks/{segment(webhook_id)}"


def _delivery_path(webhook_id: str, delivery_id: str) -> str:
    return f"{_path(webhook_id)}/deliveries/{segment(delivery_id)}"
