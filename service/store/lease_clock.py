"""The clock that leases are counted by: one for all workers of a database, and one that does not jump.

PostgreSQL's workers share its clock. SQLite's processes share a host, whose wall clock an operator, NTP or a virtual machine
may set by more than a lease: that would take jobs from workers that are alive, or leave them with workers that are not. So
leases on SQLite are counted by the host's monotonic clock, which stands still while the machine, its workers included,
sleeps. The database keeps at which time that clock read zero, for each start of the host.
"""

import time
from datetime import datetime, timedelta
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.orm import Session

from service.store.database import CLOCK, now
from service.store.models import Dataset, Export, HostClock, Job, WebhookDelivery

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def lease_now(session: Session) -> datetime:
    """The time that leases end by, in a transaction that writes. On SQLite it is no wall clock: show it to nobody."""
    boot_id = _boot_id()
    has_its_own = session.info.get(CLOCK) is not None or session.get_bind().dialect.name != "sqlite"
    if has_its_own or boot_id is None:
        return now(session)
    clock = session.get(HostClock, boot_id) or _set(session, boot_id)
    return clock.zero_at + timedelta(seconds=time.monotonic())


def _set(session: Session, boot_id: str) -> HostClock:
    """The clock of this start of the host. It begins behind every lease there is: their workers did not survive it."""
    ends = [
        session.scalar(sa.select(sa.func.max(table.lease_expires_at)))
        for table in (Job, Dataset, Export, WebhookDelivery)
    ]
    reads = max([now(session), *(end for end in ends if end is not None)])
    clock = HostClock(boot_id=boot_id, zero_at=reads - timedelta(seconds=time.monotonic()))
    session.add(clock)
    return clock


def _boot_id() -> str | None:
    """What names this start of the host, where the system has a name for it (Linux)."""
    return BOOT_ID.read_text().strip() if BOOT_ID.exists() else None
