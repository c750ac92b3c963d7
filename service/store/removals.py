"""Objects that must follow a deleted row out of the store.

The prefix is noted in the transaction that deletes the row, so a store that is down, or a process that dies, only delays
the removal: every sweep goes on with what is due. A prefix is looked at once more a day later, for what a worker that was
given up for lost uploaded after the deletion.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog
from sqlalchemy.orm import Session

from service.store.database import Store, now
from service.store.models import Removal
from service.store.objects import ObjectStore
from service.store.unavailable import ObjectsUnavailable

TRY_AGAIN_SECONDS = 60.0
LOOK_AGAIN_SECONDS = 24 * 3600.0
AT_ONCE = 20
SUPERSEDED_FOR = timedelta(days=1)

log = structlog.get_logger()


def to_remove(session: Session, prefixes: Iterable[str], time: datetime, delay: timedelta = timedelta(0)) -> None:
    """Have everything under the prefixes removed, once this transaction is committed and the delay over."""
    for prefix in prefixes:
        session.merge(Removal(prefix=prefix, created_at=time, due_at=time + delay))


def supersede(session: Session, prefix: str) -> None:
    """Have what a lost attempt stored removed, now that a later one has stored it anew; who reads it just now has time to end."""
    to_remove(session, [prefix], now(session), SUPERSEDED_FOR)


def keep(session: Session, key: str) -> None:
    """Have an object stay that was to be removed: its row is there again."""
    session.execute(sa.delete(Removal).where(Removal.prefix == key))


def remove_due(store: Store, objects: ObjectStore) -> int:
    """Remove what is due, and return how many objects went; ends at the first sign that the store is away."""
    removed = 0
    while prefixes := _take(store):
        for prefix in prefixes:
            try:
                removed += _remove(objects, prefix)
            except (ObjectsUnavailable, OSError) as error:
                log.warning("removal_delayed", prefix=prefix, error=repr(error))
                return removed
            _done(store, prefix)
    return removed


def _take(store: Store) -> list[str]:
    """Prefixes that are due. They are due again after a while, in case this process does not get to them."""
    with store.write() as session:
        time = now(session)
        due = sa.select(Removal).where(Removal.due_at <= time).order_by(Removal.due_at).limit(AT_ONCE)
        rows = session.scalars(due.with_for_update(skip_locked=True)).all()
        for row in rows:
            row.due_at = time + timedelta(seconds=TRY_AGAIN_SECONDS)
        return [row.prefix for row in rows]


def _remove(objects: ObjectStore, prefix: str) -> int:
    found = list(objects.list(prefix))
    for info in found:
        objects.delete(info.key)
    return len(found)


def _done(store: Store, prefix: str) -> None:
    with store.write() as session:
        row = session.get(Removal, prefix, with_for_update=True)
        if row is None:
            return
        look_again = row.created_at + timedelta(seconds=LOOK_AGAIN_SECONDS)
        if now(session) >= look_again:
            session.delete(row)
        else:
            row.due_at = look_again
