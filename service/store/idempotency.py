"""Idempotency keys: the same key and request get the first answer again, however often they are sent.

`begin` sets an id aside for what the request will create. A request whose process died halfway is begun again with the
same id, and `jobs.create(job_id=...)` finds what was already created: a retry never makes a second job.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.store.database import Store, now
from service.store.ids import Prefix, new_id
from service.store.models import IdempotencyKey

IN_FLIGHT_SECONDS = 600  # a request without an answer after this long has died


@dataclass(frozen=True)
class Fresh:
    """The first request under its key: create the resource under `resource_id`, then `complete`."""

    resource_id: str


@dataclass(frozen=True)
class Replay:
    """The answer that the first request got."""

    status: int
    body: dict[str, Any]


class KeyReused(Exception):  # noqa: N818
    """The key came before with another request (422)."""


class InFlight(Exception):  # noqa: N818
    """The first request under this key has not been answered yet (409)."""


def begin(
    store: Store,
    project_id: str,
    key: str,
    request_sha256: str,
    prefix: Prefix,
    in_flight_seconds: float = IN_FLIGHT_SECONDS,
) -> Fresh | Replay:
    """Take the key for this request; raises `KeyReused` or `InFlight`."""
    with store.write() as session:
        if (resource_id := _insert(session, project_id, key, request_sha256, prefix)) is not None:
            return Fresh(resource_id)
        row = session.get_one(IdempotencyKey, (project_id, key), with_for_update=True)
        if row.request_sha256 != request_sha256:
            raise KeyReused(key)
        if row.status is not None:
            assert row.body is not None
            return Replay(row.status, row.body)
        time = now(session)
        if row.created_at > time - timedelta(seconds=in_flight_seconds):
            raise InFlight(key)
        row.created_at = time
        return Fresh(row.resource_id)


def complete(store: Store, project_id: str, key: str, status: int, body: dict[str, Any]) -> None:
    """Keep the answer of the request that `begin` let through."""
    with store.write() as session:
        row = session.get(IdempotencyKey, (project_id, key))
        if row is not None:  # else what was created has been deleted already
            row.status, row.body = status, body


def abandon(store: Store, project_id: str, key: str) -> None:
    """The request failed and created nothing: the key may be used again."""
    with store.write() as session:
        unanswered = (IdempotencyKey.key == key, IdempotencyKey.status.is_(None))
        session.execute(sa.delete(IdempotencyKey).where(IdempotencyKey.project_id == project_id, *unanswered))


def forget_old(store: Store, after_seconds: float) -> int:
    """Delete keys older than that; returns how many."""
    with store.write() as session:
        old = IdempotencyKey.created_at < now(session) - timedelta(seconds=after_seconds)
        return len(session.scalars(sa.delete(IdempotencyKey).where(old).returning(IdempotencyKey.key)).all())


def forget_those_of(session: Session, project_id: str, resource_ids: Sequence[str]) -> None:
    """Forget the answers that repeat what was sent for these, which are deleted."""
    of_them = (IdempotencyKey.project_id == project_id, IdempotencyKey.resource_id.in_(resource_ids))
    session.execute(sa.delete(IdempotencyKey).where(*of_them))


def _insert(session: Session, project_id: str, key: str, request_sha256: str, prefix: Prefix) -> str | None:
    """The id set aside, or None when the key is taken; two requests that race see one winner."""
    resource_id = new_id(prefix)
    try:
        with session.begin_nested():
            session.add(
                IdempotencyKey(
                    project_id=project_id,
                    key=key,
                    request_sha256=request_sha256,
                    resource_id=resource_id,
                    created_at=now(session),
                )
            )
    except IntegrityError:
        return None
    return resource_id
