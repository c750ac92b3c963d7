"""Who is told of what happens in a project, and what is told. See `webhooks.py`, `outbox.py` and `deliveries.py`."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from service.store.models.base import LONGEST_NAME, Base, Id, project_id
from service.store.records.webhooks import DeliveryState, DisabledBecause
from service.store.traces import LONGEST_TRACEPARENT


class Webhook(Base):
    """An address that events of a project are posted to; `event_types` null is all of them. Its secrets are sealed."""

    __tablename__ = "webhooks"
    __table_args__ = (sa.Index("ix_webhooks_project_id_id", "project_id", "id"),)

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    project_id: Mapped[str] = project_id()
    url: Mapped[str] = mapped_column(sa.Text)
    description: Mapped[str | None] = mapped_column(sa.String(LONGEST_NAME))
    event_types: Mapped[list[str] | None]
    enabled: Mapped[bool]
    disabled_because: Mapped[DisabledBecause | None] = mapped_column(sa.String(16))
    secret: Mapped[str] = mapped_column(sa.Text)
    old_secret: Mapped[str | None] = mapped_column(sa.Text)
    old_secret_until: Mapped[datetime | None]
    failing_since: Mapped[datetime | None]
    num_failures: Mapped[int] = mapped_column(default=0)  # of tries, since the last one that was answered well
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class WebhookDelivery(Base):
    """One event for one address: written with what it tells of, then sent by a worker until it was taken.

    `attempt` fences the tries, `num_failures` counts those of this round: asking for it again begins a new one.
    """

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        sa.Index("ix_webhook_deliveries_webhook_id_id", "webhook_id", "id"),
        sa.Index("ix_webhook_deliveries_state_due_at", "state", "due_at"),
        sa.Index(None, "lease_expires_at"),
        sa.Index(None, "created_at"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    webhook_id: Mapped[str] = mapped_column(Id, sa.ForeignKey("webhooks.id", ondelete="CASCADE"))
    project_id: Mapped[str] = project_id()
    type: Mapped[str] = mapped_column(sa.String(40))
    body: Mapped[str] = mapped_column(sa.Text)
    state: Mapped[DeliveryState] = mapped_column(sa.String(16))
    attempt: Mapped[int] = mapped_column(default=0)
    num_failures: Mapped[int] = mapped_column(default=0)
    tries: Mapped[list[dict[str, Any]]] = mapped_column(sa.JSON(none_as_null=True))
    due_at: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None]
    traceparent: Mapped[str | None] = mapped_column(sa.String(LONGEST_TRACEPARENT))
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
