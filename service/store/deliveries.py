"""Deliveries as a sender sees them: claimed one by one, sent, recorded; and as their owners do, who look at them and ask again.

Any number of senders may work on one database. A claim is a lease: of two senders one gets a delivery, and if that one dies the
delivery is due again when the lease ends. So each is sent at least once, now and then twice, and always under the same id.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store import announcements, audit, outbox
from service.store.audit import Deed
from service.store.database import Store, now
from service.store.lease_clock import lease_now
from service.store.models import Webhook, WebhookDelivery
from service.store.records.base import Slice
from service.store.records.webhooks import DeliveryClaim, DeliveryRecord, DeliveryState
from service.store.retry_schedule import next_wait
from service.store.traces import current_traceparent
from service.store.webhook_events import PING

AT_ONCE = 2  # to one address: one that is slow keeps no sender from the others
TRIES_KEPT = 20
FAILURES_BEFORE_DISABLED = 10  # in a row, beside the days: an address that is rarely asked gets its chances too
GONE = 410


@dataclass(frozen=True)
class Answer:
    """How a try ended. `answer` is the beginning of what came back, `retry_after` what the receiver asked for."""

    status: int | None
    milliseconds: int
    error: str | None = None
    answer: str = ""
    retry_after: timedelta | None = None

    @property
    def is_good(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class WebhookOff(Exception):  # noqa: N818 - a state of affairs, read as one
    """The webhook is disabled: nothing is sent to it."""


# --- the sender ----------------------------------------------------------------------------------------------------


def claim(store: Store, lease_seconds: float) -> DeliveryClaim | None:
    """Take the delivery that is due the longest, of an address that is not busy; None when there is nothing to send."""
    if not _is_any_due(store):
        return None  # a look, since SQLite's writers wait for each other
    with store.write() as session:
        time, lease = now(session), lease_now(session)
        busy = (
            sa.select(WebhookDelivery.webhook_id)
            .where(WebhookDelivery.lease_expires_at >= lease)
            .group_by(WebhookDelivery.webhook_id)
            .having(sa.func.count() >= AT_ONCE)
        )
        free = sa.or_(WebhookDelivery.lease_expires_at.is_(None), WebhookDelivery.lease_expires_at < lease)
        query = (
            _due(time)
            .where(free, WebhookDelivery.webhook_id.not_in(busy))
            .order_by(WebhookDelivery.due_at, WebhookDelivery.id)
            .limit(1)
        )
        found = session.execute(query.with_for_update(skip_locked=True, of=WebhookDelivery)).one_or_none()
        if found is None:
            return None
        row, webhook = found
        row.attempt += 1
        row.lease_expires_at = lease + timedelta(seconds=lease_seconds)
        return DeliveryClaim(
            id=row.id,
            webhook_id=row.webhook_id,
            attempt=row.attempt,
            url=webhook.url,
            body=row.body,
            secrets=_secrets(webhook, time),
            project_id=row.project_id,
            created_at=row.created_at,
            traceparent=row.traceparent,
        )


def _due(time: datetime) -> sa.Select[WebhookDelivery, Webhook]:
    is_sent = sa.or_(Webhook.enabled, WebhookDelivery.type == PING)  # a test of one that is off, before it is on again
    return (
        sa.select(WebhookDelivery, Webhook)
        .join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
        .where(WebhookDelivery.state == "pending", WebhookDelivery.due_at <= time, is_sent)
    )


def _is_any_due(store: Store) -> bool:
    with store.read() as session:
        return session.execute(_due(now(session)).with_only_columns(sa.literal(1)).limit(1)).first() is not None


def _secrets(webhook: Webhook, time: datetime) -> tuple[str, ...]:
    """The newest first, and the one before for as long as it was promised."""
    if webhook.old_secret is None or webhook.old_secret_until is None or webhook.old_secret_until <= time:
        return (webhook.secret,)
    return webhook.secret, webhook.old_secret


def record(store: Store, claimed: DeliveryClaim, answer: Answer, disable_after: timedelta) -> DeliveryState | None:
    """Note how a try ended, and when the next one is due; None, and nothing is noted, where another sender has it by now.

    An address that answers 410, or that has had nothing good to say for `disable_after`, is not asked any more.
    """
    with store.write() as session:
        # the webhook first, as whoever deletes it does
        webhook = session.get(Webhook, claimed.webhook_id, with_for_update={"key_share": True})
        held = (WebhookDelivery.id == claimed.id, WebhookDelivery.attempt == claimed.attempt)
        mine = sa.select(WebhookDelivery).where(*held, WebhookDelivery.state == "pending").with_for_update()
        row = session.scalars(mine).one_or_none()
        if webhook is None or row is None:
            return None
        time = now(session)
        row.lease_expires_at = None
        row.tries = [*row.tries, _try(answer, time)][-TRIES_KEPT:]
        if answer.is_good:
            _end(row, "delivered", time)
            webhook.failing_since, webhook.num_failures = None, 0
        else:
            _failed(session, webhook, row, answer, time, disable_after)
        return row.state


def _try(answer: Answer, time: datetime) -> dict[str, Any]:
    return {
        "time": time.isoformat(),
        "status": answer.status,
        "milliseconds": answer.milliseconds,
        "error": answer.error,
        "answer": answer.answer,
    }


def _failed(
    session: Session,
    webhook: Webhook,
    row: WebhookDelivery,
    answer: Answer,
    time: datetime,
    disable_after: timedelta,
) -> None:
    row.num_failures += 1
    wait = next_wait(row.num_failures, random.random(), answer.retry_after)  # noqa: S311  spreads tries, hides nothing
    if wait is None or row.type == PING or answer.status == GONE:
        _end(row, "failed", time)
    else:
        row.due_at = time + wait
    if row.type == PING:  # somebody tries something
        return
    webhook.num_failures += 1
    since = webhook.failing_since = webhook.failing_since or time
    is_failing = time - since >= disable_after and webhook.num_failures >= FAILURES_BEFORE_DISABLED
    if webhook.enabled and (answer.status == GONE or is_failing):
        _disable(session, webhook, "gone" if answer.status == GONE else "failing", time)


def _disable(session: Session, webhook: Webhook, because: Literal["gone", "failing"], time: datetime) -> None:
    webhook.enabled, webhook.disabled_because, webhook.updated_at = False, because, time
    audit.add(
        session,
        Deed("webhook disabled", object_ids=[webhook.id], project_id=webhook.project_id),
        "done",
        None,
        time,
    )
    session.flush()
    announcements.webhook_disabled(session, webhook, because, time)


def _end(row: WebhookDelivery, state: DeliveryState, time: datetime) -> None:
    row.state, row.due_at, row.ended_at = state, None, time


# --- their owners --------------------------------------------------------------------------------------------------


def get(store: Store, project_id: str, webhook_id: str, delivery_id: str) -> DeliveryRecord | None:
    """The delivery, or None when the project's webhook has no such one."""
    with store.read() as session:
        row = _row(session, project_id, webhook_id, delivery_id)
        return None if row is None else DeliveryRecord.model_validate(row)


def list_deliveries(
    store: Store,
    project_id: str,
    webhook_id: str,
    *,
    state: DeliveryState | None = None,
    after_id: str | None = None,
    limit: int = 20,
) -> Slice[DeliveryRecord]:
    """A webhook's deliveries, newest first, older than `after_id`."""
    query = (
        sa.select(WebhookDelivery)
        .where(WebhookDelivery.webhook_id == webhook_id, WebhookDelivery.project_id == project_id)
        .order_by(WebhookDelivery.id.desc())
    )
    if state is not None:
        query = query.where(WebhookDelivery.state == state)
    if after_id is not None:
        query = query.where(WebhookDelivery.id < after_id)
    with store.read() as session:
        rows = session.scalars(query.limit(limit + 1)).all()
        return Slice(tuple(map(DeliveryRecord.model_validate, rows[:limit])), has_more=len(rows) > limit)


def ping(store: Store, project_id: str, webhook_id: str) -> DeliveryRecord | None:
    """Have a test sent, once, whether or not the webhook is enabled; None when there is no such webhook."""
    with store.write() as session:
        wanted = sa.select(Webhook).where(Webhook.id == webhook_id, Webhook.project_id == project_id)
        webhook = session.scalars(wanted.with_for_update(read=True, key_share=True)).one_or_none()
        if webhook is None:
            return None
        row = outbox.ping(webhook, now(session))
        session.add(row)
        audit.touch(session)
        session.flush()
        return DeliveryRecord.model_validate(row)


def redeliver(store: Store, project_id: str, webhook_id: str, delivery_id: str) -> DeliveryRecord | None:
    """Have it sent again, at once and with all its tries, under its old id. Raises `WebhookOff`."""
    with store.write() as session:
        webhook = session.get(Webhook, webhook_id, with_for_update={"read": True, "key_share": True})
        row = _row(session, project_id, webhook_id, delivery_id, lock=True)
        if webhook is None or row is None:
            return None
        if not webhook.enabled and row.type != PING:
            raise WebhookOff(webhook_id)
        row.state, row.due_at, row.ended_at, row.num_failures = "pending", now(session), None, 0
        row.traceparent = current_traceparent()
        audit.touch(session)
        session.flush()
        return DeliveryRecord.model_validate(row)


def _row(
    session: Session, project_id: str, webhook_id: str, delivery_id: str, lock: bool = False
) -> WebhookDelivery | None:
    query = sa.select(WebhookDelivery).where(
        WebhookDelivery.id == delivery_id,
        WebhookDelivery.webhook_id == webhook_id,
        WebhookDelivery.project_id == project_id,
    )
    return session.scalars(query.with_for_update() if lock else query).one_or_none()


# --- the operator --------------------------------------------------------------------------------------------------


def forget_old(store: Store, keep_days: float) -> int:
    """Take out what is older than `keep_days`, sent or not; how many went."""
    with store.write() as session:
        old = WebhookDelivery.created_at < now(session) - timedelta(days=keep_days)
        result: Any = session.execute(sa.delete(WebhookDelivery).where(old))
        return result.rowcount
