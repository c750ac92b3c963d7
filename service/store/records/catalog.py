"""What workers told of their machine and of models."""

from datetime import datetime
from typing import Any, Literal

from alignment_core.model_files import ModelReport
from service.store.records.base import Record


class CardRecord(Record):
    """What a worker computes on: a GPU by its name, or the machine's processor."""

    name: str
    device: Literal["cuda", "cpu"]
    memory_bytes: int


class KnownModelRecord(Record):
    """What the files of a model say, once a worker has read them, or why none could."""

    id: str
    source: dict[str, Any]
    report: ModelReport | None
    reader: str | None
    error: str | None
    asked_at: datetime
    tried_at: datetime | None
