"""What changes while something is waited for, of many jobs or data sets in one transaction."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import sqlalchemy as sa

from service.store.database import Store
from service.store.models import Dataset, Export, Job, Push
from service.store.records.checkpoints import ExportState, PushState
from service.store.records.uploads import DatasetState
from service.store.states import TERMINAL, JobState

AT_ONCE = 500  # far below what either database binds in a statement


class JobPulse(NamedTuple):
    """Where a job stands, and how many events it has."""

    state: JobState
    last_seq: int

    @property
    def is_terminal(self) -> bool:
        return self.state in TERMINAL


def job_pulses(store: Store, ids: Sequence[str]) -> dict[str, JobPulse]:
    """By id; a job that was deleted is left out."""
    found: dict[str, JobPulse] = {}
    with store.read() as session:
        for some in _batches(ids):
            rows = session.execute(sa.select(Job.id, Job.state, Job.last_seq).where(Job.id.in_(some)))
            found |= {job_id: JobPulse(state, last_seq) for job_id, state, last_seq in rows}
    return found


def dataset_states(store: Store, ids: Sequence[str]) -> dict[str, DatasetState]:
    """By id; a data set that was deleted is left out."""
    found: dict[str, DatasetState] = {}
    with store.read() as session:
        for some in _batches(ids):
            rows = session.execute(sa.select(Dataset.id, Dataset.state).where(Dataset.id.in_(some)))
            found |= {dataset_id: state for dataset_id, state in rows}  # noqa: C416  rows are tuples to run time alone
    return found


def export_states(store: Store, ids: Sequence[str]) -> dict[str, ExportState]:
    """By id; an export that went with its checkpoint is left out."""
    found: dict[str, ExportState] = {}
    with store.read() as session:
        for some in _batches(ids):
            rows = session.execute(sa.select(Export.id, Export.state).where(Export.id.in_(some)))
            found |= {export_id: state for export_id, state in rows}  # noqa: C416  as above
    return found


def push_states(store: Store, ids: Sequence[str]) -> dict[str, PushState]:
    """By id; a push that went with its checkpoint is left out."""
    found: dict[str, PushState] = {}
    with store.read() as session:
        for some in _batches(ids):
            rows = session.execute(sa.select(Push.id, Push.state).where(Push.id.in_(some)))
            found |= {push_id: state for push_id, state in rows}  # noqa: C416  as above
    return found


def _batches(ids: Sequence[str]) -> Iterator[Sequence[str]]:
    return (ids[start : start + AT_ONCE] for start in range(0, len(ids), AT_ONCE))
