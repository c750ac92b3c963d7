"""Datasets, and weights to start from: uploaded by the API, checked by a worker under a lease, then ready or failed.

`uploading -> checking -> ready | failed`. The functions take a `database.Store` first and return frozen records.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from alignment_core.reports import DatasetReport, WeightsReport
from alignment_core.spec import ColumnMapping
from alignment_core.spec.sources import OnBadRow
from service.store import announcements, keys, quotas, uploads
from service.store.database import Store, now
from service.store.fence import Fenced
from service.store.ids import new_id
from service.store.lease_clock import lease_now
from service.store.models import LONGEST_FILENAME, LONGEST_NAME, Dataset
from service.store.records.base import JobError, Slice
from service.store.records.uploads import Browsing, DatasetClaim, DatasetRecord, DatasetState, UploadKind
from service.store.removals import to_remove


def create(
    store: Store,
    *,
    project_id: str,
    filename: str,
    name: str | None = None,
    columns: ColumnMapping | None = None,
    on_bad_row: OnBadRow = "fail",
    kind: UploadKind = "data",
    dataset_id: str | None = None,
    size_bytes: int | None = None,
    provenance: dict[str, Any] | None = None,
    upload_id: str | None = None,
) -> DatasetRecord:
    """A dataset whose file is on its way; `columns` says which column is what, where their names do not. `dataset_id` is the id that `idempotency.begin` set aside.

    `provenance` says of what it was made, if it was made here; of one whose file never came it is what is said last. `size_bytes` counts towards
    the project's quota from now on, in place of the upload's that it is made of; raises `QuotaExceeded`.
    """
    for field, text, longest in (("name", name or "", LONGEST_NAME), ("filename", filename, LONGEST_FILENAME)):
        if "\0" in text or len(text) > longest:
            raise ValueError(f"{field} must have at most {longest} characters, none of them NUL")
    with store.write() as session:
        if dataset_id is not None and (existing := _row(session, dataset_id, project_id)) is not None:
            if existing.state == "uploading":
                existing.provenance = provenance
            return record_of(existing)
        uploads.release(session, upload_id)
        quotas.admit_bytes(session, project_id, size_bytes or 0)
        time = now(session)
        row = Dataset(
            id=dataset_id or new_id("ds" if kind == "data" else "wts"),
            project_id=project_id,
            name=name,
            filename=filename,
            kind=kind,
            on_bad_row=on_bad_row,
            columns=None if columns is None else {str(role): column for role, column in columns.items()},
            provenance=provenance,
            state="uploading",
            size_bytes=size_bytes,
            attempt=0,
            created_at=time,
            updated_at=time,
        )
        session.add(row)
        session.flush()
        return record_of(row)


def uploaded(store: Store, dataset_id: str, *, size_bytes: int, sha256: str, object_key: str) -> DatasetRecord:
    """The file is in the object store: a worker may check it. The caller rings the bell afterwards.

    Calling it again for a dataset that is past its upload changes nothing.
    """
    with store.write() as session:
        row = session.scalars(sa.select(Dataset).where(Dataset.id == dataset_id).with_for_update()).one()
        if row.state == "uploading":
            time = now(session)
            row.state, row.updated_at = "checking", time
            row.size_bytes, row.sha256, row.object_key = size_bytes, sha256, object_key
        return record_of(row)


def encoded(store: Store, dataset_id: str, encoded_bytes: int) -> None:
    """Note how much the object store holds of its images and prompts, encoded; nothing where the dataset is gone."""
    with store.write() as session:
        session.execute(sa.update(Dataset).where(Dataset.id == dataset_id).values(encoded_bytes=encoded_bytes))


def with_encodings(store: Store) -> list[tuple[str, str]]:
    """Project and id of every dataset of which the object store holds something encoded."""
    query = sa.select(Dataset.project_id, Dataset.id).where(Dataset.encoded_bytes > 0).order_by(Dataset.id)
    with store.read() as session:
        return [(project_id, dataset_id) for project_id, dataset_id in session.execute(query)]


def upload_failed(store: Store, dataset_id: str, error: JobError) -> DatasetRecord:
    """The upload broke off or was refused; a dataset that is past its upload stays as it is."""
    with store.write() as session:
        row = session.scalars(sa.select(Dataset).where(Dataset.id == dataset_id).with_for_update()).one()
        if row.state == "uploading":
            row.size_bytes = None  # nothing is stored
            _end(session, row, "failed", error)
        return record_of(row)


def get(store: Store, project_id: str, dataset_id: str) -> DatasetRecord | None:
    """The dataset, or None when the project has no such dataset."""
    with store.read() as session:
        row = _row(session, dataset_id, project_id)
        return None if row is None else record_of(row)


def list_datasets(
    store: Store, project_id: str, *, kind: UploadKind = "data", after_id: str | None = None, limit: int = 20
) -> Slice[DatasetRecord]:
    """The project's datasets, or its weights, newest first, older than `after_id`."""
    of_kind = sa.select(Dataset).where(Dataset.project_id == project_id, Dataset.kind == kind)
    query = of_kind.order_by(Dataset.id.desc()).limit(limit + 1)
    if after_id is not None:
        query = query.where(Dataset.id < after_id)
    with store.read() as session:
        rows = session.scalars(query).all()
        return Slice(tuple(record_of(row) for row in rows[:limit]), has_more=len(rows) > limit)


def existing(store: Store, dataset_ids: Sequence[str]) -> set[str]:
    """Those of the ids that some project has."""
    with store.read() as session:
        parts = (dataset_ids[start : start + 1000] for start in range(0, len(dataset_ids), 1000))
        return {found for part in parts for found in session.scalars(sa.select(Dataset.id).where(Dataset.id.in_(part)))}


def known_files(store: Store, sha256s: Sequence[str]) -> set[str]:
    """Those of the hashes that are the hash of some dataset's file, in any project."""
    with store.read() as session:
        return {
            found
            for start in range(0, len(sha256s), 1000)
            for found in session.scalars(
                sa.select(Dataset.sha256).where(Dataset.sha256.in_(sha256s[start : start + 1000]))
            )
            if found is not None
        }


def claim(store: Store, dataset_id: str, worker_id: str, lease_seconds: float) -> DatasetClaim | None:
    """Take a dataset to check it; None when nothing is to be checked, or another worker's lease has not ended."""
    with store.write() as session:
        time = lease_now(session)
        row = session.scalars(
            sa.update(Dataset)
            .where(
                Dataset.id == dataset_id,
                Dataset.state == "checking",
                sa.or_(Dataset.lease_expires_at.is_(None), Dataset.lease_expires_at < time),
            )
            .values(
                attempt=Dataset.attempt + 1,
                worker_id=worker_id,
                lease_expires_at=time + timedelta(seconds=lease_seconds),
            )
            .returning(Dataset)
        ).one_or_none()
        return (
            None
            if row is None
            else DatasetClaim(dataset=record_of(row), attempt=row.attempt, traceparent=row.traceparent)
        )


def renew(store: Store, dataset_id: str, attempt: int, lease_seconds: float) -> bool:
    """Extend the lease; False when the attempt no longer holds the dataset, one that gave it back included."""
    with store.write() as session:
        held = (Dataset.attempt == attempt, Dataset.state == "checking", Dataset.lease_expires_at.is_not(None))
        extended = session.scalars(
            sa.update(Dataset)
            .where(Dataset.id == dataset_id, *held)
            .values(lease_expires_at=lease_now(session) + timedelta(seconds=lease_seconds))
            .returning(Dataset.id)
        ).one_or_none()
        return extended is not None


def set_report(
    store: Store,
    dataset_id: str,
    attempt: int,
    report: DatasetReport | WeightsReport,
    browsing: Browsing | None = None,
) -> DatasetRecord:
    """Store what the check found: the dataset is ready when the report says that it can be used. Raises `Fenced`.

    `browsing` is the object with its rows and thumbnails, which is stored by now.
    """
    with store.write() as session:
        row = _hold(session, dataset_id, attempt)
        row.report, row.format = report.model_dump(mode="json"), report.format
        if browsing is not None:
            row.browsing_key, row.browsing_bytes = browsing.object_key, browsing.size_bytes
        _remove_browsing(session, row, attempt - 1)
        if isinstance(report, WeightsReport) or report.is_usable:
            _end(session, row, "ready", None)
        else:
            _end(session, row, "failed", _unusable(report))
        return record_of(row)


def fail(store: Store, dataset_id: str, attempt: int, error: JobError) -> DatasetRecord:
    """The file could not be read at all. Raises `Fenced`."""
    with store.write() as session:
        row = _hold(session, dataset_id, attempt)
        _remove_browsing(session, row, attempt - 1)
        _end(session, row, "failed", error)
        return record_of(row)


def give_back(store: Store, dataset_id: str, attempt: int) -> DatasetRecord:
    """Leave the check to the next worker at once, as one that shuts down does. The caller rings. Raises `Fenced`."""
    with store.write() as session:
        row, time = _hold(session, dataset_id, attempt), now(session)
        row.lease_expires_at = row.worker_id = None
        row.updated_at = time
        return record_of(row)


def sweep(store: Store, *, max_attempts: int, upload_timeout_seconds: float) -> tuple[str, ...]:
    """Take datasets from checkers that were lost, and fail those that nobody could check or whose upload never ended.

    Returns the ids of those that wait for a checker again.
    """
    with store.write() as session:
        time = now(session)
        stale = time - timedelta(seconds=upload_timeout_seconds)
        unfinished = sa.select(Dataset).where(Dataset.state == "uploading", Dataset.updated_at < stale)
        for row in session.scalars(unfinished.with_for_update(skip_locked=True)):
            _end(session, row, "failed", _INTERRUPTED)
        lost = sa.select(Dataset).where(Dataset.state == "checking", Dataset.lease_expires_at < lease_now(session))
        again = []
        for row in session.scalars(lost.order_by(Dataset.id).with_for_update(skip_locked=True)):
            row.num_lost += 1
            if row.num_lost >= max_attempts:
                _remove_browsing(session, row, row.attempt)
                _end(session, row, "failed", _exhausted(row.num_lost))
            else:
                row.lease_expires_at = row.worker_id = None
                again.append(row.id)
        return tuple(again)


def record_of(row: Dataset) -> DatasetRecord:
    """The frozen record of a row."""
    values: dict[str, Any] = {field: getattr(row, field) for field in DatasetRecord.model_fields if field != "error"}
    return DatasetRecord(**values, error=None if row.error is None else JobError.model_validate(row.error))


def _row(session: Session, dataset_id: str, project_id: str) -> Dataset | None:
    query = sa.select(Dataset).where(Dataset.id == dataset_id, Dataset.project_id == project_id)
    return session.scalars(query).one_or_none()


def _hold(session: Session, dataset_id: str, attempt: int) -> Dataset:
    held = (Dataset.id == dataset_id, Dataset.attempt == attempt, Dataset.state == "checking")
    row = session.scalars(sa.select(Dataset).where(*held).with_for_update()).one_or_none()
    if row is None:
        raise Fenced(dataset_id, attempt)
    return row


def _end(session: Session, row: Dataset, state: DatasetState, error: JobError | None) -> None:
    row.state, row.updated_at = state, now(session)
    row.error = None if error is None else error.model_dump(mode="json")
    row.lease_expires_at = row.worker_id = None
    announcements.upload_checked(session, row, row.updated_at)


def _remove_browsing(session: Session, row: Dataset, attempts: int) -> None:
    """Have removed what the first so many attempts may have stored for people to browse before they were lost."""
    written = [keys.browsing_key(row.project_id, row.id, one) for one in range(1, attempts + 1)]
    to_remove(session, written if row.kind == "data" else [], now(session))


def _unusable(report: DatasetReport) -> JobError:
    problems = [problem.message for problem in report.problems if problem.severity == "error"]
    return JobError(
        code="dataset_unusable",
        message="; ".join(problems) or f"none of the {report.num_rows} rows can be trained on",
        category="user",
        hint="The report names the rows.",
    )


def _exhausted(num_lost: int) -> JobError:
    return JobError(
        code="attempts_exhausted",
        message=f"{num_lost} workers were lost while they checked this dataset",
        category="system",
        retryable=True,
    )


_INTERRUPTED = JobError(
    code="upload_interrupted",
    message="the upload never ended",
    category="user",
    retryable=True,
    hint="Upload it again.",
)
