"""What the files of models say: asked by the API, read once by a worker, which has the files and the network.

A model of the Hub is a commit, so what was read of it holds until a later Attune reads more, or trains another family. A folder
may change: its report has a stamp.
"""

from datetime import timedelta
from pathlib import Path

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.exc import IntegrityError

from alignment_core.model_files import READER, ModelReport
from alignment_core.spec import HubSource, LocalSource, SingleFileSource, sha256_of_json
from service.store.database import Store, now
from service.store.models import Model
from service.store.records.catalog import KnownModelRecord

ModelFiles = HubSource | LocalSource | SingleFileSource
MOST_KEPT = 1000  # those asked about last; a report has at most some 100 kB
TRY_AGAIN_SECONDS = 300.0  # the Hub was away, or its owner had not let us in yet
CANDIDATES = 20

_SOURCE: TypeAdapter[ModelFiles] = TypeAdapter(ModelFiles)


def recall(store: Store, source: ModelFiles) -> KnownModelRecord | None:
    """What is known of the model; None where nobody asked yet. What an older reader found does not count."""
    with store.read() as session:
        row = session.get(Model, _id(source))
        if row is None:
            return None
        found = {field: getattr(row, field) for field in KnownModelRecord.model_fields}
        return KnownModelRecord.model_validate(found | ({} if row.reader == READER else {"report": None}))


def ask(store: Store, source: ModelFiles) -> None:
    """Have a worker read the model, unless it has been asked for already."""
    if recall(store, source) is not None:
        return
    try:
        with store.write() as session:
            session.add(Model(id=_id(source), source=source.model_dump(mode="json"), asked_at=now(session)))
    except IntegrityError:
        return  # another request has just asked


def claim_unread(store: Store) -> ModelFiles | None:
    """A model that nobody has read, for this worker to try: no other one does for a while. Folders and files must be on this machine."""
    with store.write() as session:
        time = now(session)
        is_due = sa.or_(Model.tried_at.is_(None), Model.tried_at < time - timedelta(seconds=TRY_AGAIN_SECONDS))
        is_unread = sa.or_(Model.reader.is_(None), Model.reader != READER)
        unread = sa.select(Model).where(is_unread, is_due).order_by(Model.asked_at).limit(CANDIDATES)
        for row in session.scalars(unread.with_for_update(skip_locked=True)):
            source = _SOURCE.validate_python(row.source)
            if isinstance(source, HubSource) or Path(source.path).exists():
                row.tried_at = time
                return source
    return None


def remember(store: Store, source: ModelFiles, report: ModelReport) -> None:
    """Keep what was read, in place of what was known of the folder before."""
    with store.write() as session:
        row = session.get(Model, _id(source))
        if row is not None:
            row.report, row.reader, row.error = report.model_dump(mode="json"), READER, None


def not_read(store: Store, source: ModelFiles, why: str) -> None:
    """Keep why it could not be read; it is tried again later."""
    with store.write() as session:
        row = session.get(Model, _id(source))
        if row is not None:
            row.error = why


def forget_old(store: Store, most: int = MOST_KEPT) -> None:
    """Remove all but those that were asked about last."""
    with store.write() as session:
        newest = sa.select(Model.id).order_by(Model.asked_at.desc()).limit(most)
        session.execute(sa.delete(Model).where(Model.id.not_in(newest)))


def _id(source: ModelFiles) -> str:
    return sha256_of_json(source.model_dump(mode="json"))
