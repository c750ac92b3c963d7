"""Variants of the store that are wrong in one place each: a simulation that finds nothing in them would prove nothing."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.api import labeled_data
from service.store import (
    aliases,
    audit,
    datasets,
    deletion,
    deliveries,
    events,
    jobs,
    keys,
    labelings,
    leases,
    orphans,
    outbox,
    outputs,
    quotas,
    retention_rules,
    sweeps,
    usage,
)
from service.store.models import Job, Webhook, WebhookDelivery
from service.store.orphan_rules import Owner
from worker import uploads

Variant = Callable[[], AbstractContextManager[Any]]


def _hold_whoever_asks(session: Session, job_id: str, _attempt: int) -> Job:
    return session.scalars(sa.select(Job).where(Job.id == job_id)).one()


def _append_with_holes(session: Session, row: Job, event: Any) -> Any:
    row.last_seq += row.last_seq == 3
    return APPEND(session, row, event)


def _needed_unless_pinned(one: retention_rules.Candidate) -> Any:
    return NEEDED(replace(one, is_pinned=False))


def _prefix_without_attempt(project_id: str, job_id: str, step: int, _attempt: int) -> str:
    return PREFIX(project_id, job_id, step, 1)


def _seconds_unchecked(told: Any, start: Any, end: Any) -> dict[str, float]:
    return {phase: seconds - 1.0 for phase, seconds in SECONDS(told, start, end).items()}


def _record_of_whoever_has_it(store: Any, claimed: Any, *rest: Any) -> Any:
    with store.read() as session:
        attempt = session.scalar(sa.select(WebhookDelivery.attempt).where(WebhookDelivery.id == claimed.id))
    return RECORD(store, claimed.model_copy(update={"attempt": attempt}), *rest)


def _redeliver_anew(store: Any, project_id: str, webhook_id: str, delivery_id: str) -> Any:
    with store.write() as session:
        old = session.get(WebhookDelivery, delivery_id)
        session.add(outbox.delivery(webhook_id, project_id, old.type, old.body, old.created_at))
        audit.touch(session)


def _due_to_whoever(time: datetime) -> Any:
    joined = sa.select(WebhookDelivery, Webhook).join(Webhook, Webhook.id == WebhookDelivery.webhook_id)
    return joined.where(WebhookDelivery.state == "pending", WebhookDelivery.due_at <= time)


EVER_NEW = SimpleNamespace(get=lambda *_: None, create=datasets.create)
RECORD = deliveries.record
APPEND, NEEDED, PREFIX = events.append, retention_rules._needed_outside, keys.checkpoint_prefix
SECONDS = usage._seconds

VARIANTS: dict[str, Variant] = {
    "an old attempt may write": lambda: patch.object(events, "hold", _hold_whoever_asks),
    "an old attempt may end the job": lambda: patch.object(leases, "hold", _hold_whoever_asks),
    "an old attempt may renew": lambda: patch.object(
        leases, "held_by", lambda job_id, _attempt: (Job.id == job_id, Job.state.in_(leases.HELD))
    ),
    "sequence numbers have holes": lambda: patch.object(events, "append", _append_with_holes),
    "metrics are forgotten": lambda: patch.object(outputs, "put_metrics", lambda *_: None),
    "a checkpoint's files are not stored": lambda: patch.object(uploads, "_put", lambda *_: None),
    "attempts share a folder": lambda: patch.object(keys, "checkpoint_prefix", _prefix_without_attempt),
    "retention ignores pins": lambda: patch.object(retention_rules, "_needed_outside", _needed_unless_pinned),
    "aliases hold nothing": lambda: patch.object(aliases, "names_of", lambda *_: []),
    "forks hold nothing": lambda: patch.object(deletion, "_jobs_from", lambda *_: []),
    "jobs hold no data set": lambda: patch.object(deletion, "_users_of", lambda *_: []),
    "orphans are whatever lies there": lambda: patch.object(orphans, "_job", lambda *_: Owner(names_all=True)),
    "sweeps queue everything": lambda: patch.object(sweeps, "AT_REST", (*sweeps.AT_REST, "queued")),
    "quotas refuse nothing": lambda: patch.object(quotas, "_refuse", lambda *_: None),
    "every failure can be resumed": lambda: patch.object(jobs, "_refuse_final", lambda *_: None),
    "the audit log forgets": lambda: patch.object(audit, "record_change", lambda *_: None),
    "webhooks hear nothing": lambda: patch.object(outbox, "put", lambda *_: None),
    "what is sent again has another id": lambda: patch.object(deliveries, "redeliver", _redeliver_anew),
    "webhooks that are off are called": lambda: patch.object(deliveries, "_due", _due_to_whoever),
    "an old sender may record": lambda: patch.object(deliveries, "record", _record_of_whoever_has_it),
    "a vote that is taken back stays": lambda: patch.object(labelings, "take_back", lambda *_: None),
    "a data set follows later votes": lambda: patch.object(labeled_data, "datasets", EVER_NEW),
    "seconds may be negative": lambda: patch.object(usage, "_seconds", _seconds_unchecked),
}
