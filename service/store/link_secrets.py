"""Secrets that links are signed with: a new one every day, known for as long as a link of the day before may last."""

import secrets
from datetime import timedelta

import sqlalchemy as sa

from service.store.database import Store, now
from service.store.ids import new_id
from service.store.models import LinkSecret

SIGNS_FOR = timedelta(days=1)
LONGEST_LINK = timedelta(hours=1)


def to_sign(store: Store) -> tuple[str, bytes]:
    """Id and bytes of today's secret, which is made if need be; two that are made at the same time are both good."""
    newest = sa.select(LinkSecret).order_by(LinkSecret.created_at.desc(), LinkSecret.id.desc()).limit(1)
    with store.read() as session:
        found = session.scalars(newest).one_or_none()
        if found is not None and found.created_at > now(session) - SIGNS_FOR:
            return found.id, bytes.fromhex(found.secret)
    with store.write() as session:
        time = now(session)
        session.execute(sa.delete(LinkSecret).where(LinkSecret.created_at <= time - SIGNS_FOR - LONGEST_LINK))
        row = LinkSecret(id=new_id("lks"), secret=secrets.token_hex(32), created_at=time)
        session.add(row)
        return row.id, bytes.fromhex(row.secret)


def of(store: Store, secret_id: str) -> bytes | None:
    """The secret of a link, while one that was signed with it can be good."""
    with store.read() as session:
        row = session.get(LinkSecret, secret_id)
        if row is None or row.created_at <= now(session) - SIGNS_FOR - LONGEST_LINK:
            return None
        return bytes.fromhex(row.secret)
