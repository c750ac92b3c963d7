"""Webhooks of a project: make, look at, change, delete, rotate the secret. What is sent to them is in `deliveries.py`.

Secrets come and go sealed (`webhook_secrets.py`); no record has one.
"""

from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.database import Store, now
from service.store.ids import new_id
from service.store.models import Project, Webhook
from service.store.records.base import Slice
from service.store.records.webhooks import WebhookRecord


class TooMany(Exception):  # noqa: N818 - a state of affairs, read as one
    """The project has as many webhooks as it may."""


def create(
    store: Store,
    *,
    project_id: str,
    url: str,
    sealed_secret: str,
    most: int,
    event_types: Sequence[str] | None = None,
    description: str | None = None,
    enabled: bool = True,
) -> WebhookRecord:
    """A new webhook; raises `TooMany` where the project has `most` of them."""
    with store.write() as session:
        # one after the other, so that they can be counted
        session.execute(sa.select(Project.id).where(Project.id == project_id).with_for_update(key_share=True))
        there = session.scalar(sa.select(sa.func.count()).where(Webhook.project_id == project_id))
        if there is not None and there >= most:
            raise TooMany
        time = now(session)
        row = Webhook(
            id=new_id("whk"),
            project_id=project_id,
            url=url,
            description=description,
            event_types=None if event_types is None else list(event_types),
            enabled=enabled,
            disabled_because=None if enabled else "asked",
            secret=sealed_secret,
            num_failures=0,
            created_at=time,
            updated_at=time,
        )
        session.add(row)
        session.flush()
        return WebhookRecord.model_validate(row)


def get(store: Store, project_id: str, webhook_id: str) -> WebhookRecord | None:
    """The webhook, or None when the project has no such one."""
    with store.read() as session:
        row = _row(session, project_id, webhook_id)
        return None if row is None else WebhookRecord.model_validate(row)


def list_webhooks(
    store: Store, project_id: str, *, after_id: str | None = None, limit: int = 20
) -> Slice[WebhookRecord]:
    """The project's webhooks, newest first, older than `after_id`."""
    query = sa.select(Webhook).where(Webhook.project_id == project_id).order_by(Webhook.id.desc()).limit(limit + 1)
    with store.read() as session:
        rows = session.scalars(query if after_id is None else query.where(Webhook.id < after_id)).all()
        return Slice(tuple(map(WebhookRecord.model_validate, rows[:limit])), has_more=len(rows) > limit)


def change(
    store: Store,
    project_id: str,
    webhook_id: str,
    *,
    url: str,
    event_types: Sequence[str] | None,
    description: str | None,
    enabled: bool,
) -> WebhookRecord | None:
    """Put these in place of what it had; what waits for one that is enabled again goes on. None when there is no such webhook."""
    with store.write() as session:
        row = _row(session, project_id, webhook_id, lock=True)
        if row is None:
            return None
        if enabled and not row.enabled:
            row.disabled_because, row.failing_since, row.num_failures = None, None, 0
        if not enabled and row.enabled:
            row.disabled_because = "asked"
        row.url, row.description, row.enabled = url, description, enabled
        row.event_types = None if event_types is None else list(event_types)
        row.updated_at = now(session)
        session.flush()
        return WebhookRecord.model_validate(row)


def rotate_secret(
    store: Store, project_id: str, webhook_id: str, sealed_secret: str, grace: timedelta
) -> WebhookRecord | None:
    """Sign with another secret, and for `grace` with the one before too."""
    with store.write() as session:
        row = _row(session, project_id, webhook_id, lock=True)
        if row is None:
            return None
        row.old_secret, row.old_secret_until = (row.secret, now(session) + grace) if grace else (None, None)
        row.secret, row.updated_at = sealed_secret, now(session)
        session.flush()
        return WebhookRecord.model_validate(row)


def delete(store: Store, project_id: str, webhook_id: str) -> str | None:
    """Remove it with its deliveries; None when there is no such webhook."""
    with store.write() as session:
        wanted = sa.delete(Webhook).where(Webhook.id == webhook_id, Webhook.project_id == project_id)
        return session.scalars(wanted.returning(Webhook.id)).one_or_none()


def _row(session: Session, project_id: str, webhook_id: str, lock: bool = False) -> Webhook | None:
    query = sa.select(Webhook).where(Webhook.id == webhook_id, Webhook.project_id == project_id)
    return session.scalars(query.with_for_update(key_share=True) if lock else query).one_or_none()
