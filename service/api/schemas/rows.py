"""What is shown of every row of the queue, whatever its run does."""

from collections.abc import Collection
from typing import Any

from pydantic import Field

from alignment_core.errors import Category
from service.api.schemas.base import Resource
from service.store.records.jobs import JobSummary as SummaryRecord


class QueuePlace(Resource):
    """Where a queued job stands, and what it waits for. Jobs of all projects stand in one line, or in one for each class of jobs."""

    position: int = Field(description="Place among the queued jobs of its class; 1 is next.", examples=[3])
    ahead: int = Field(
        description="What it waits for: the queued jobs of its class before it, and those that workers hold just now. 0 means that "
        "it is taken as soon as a worker is there.",
        examples=[4],
    )


class JobError(Resource):
    """Why a job failed or had to pause, and what may be done about it."""

    code: str = Field(description="Stable name of the error.", examples=["non_finite_loss"])
    message: str
    category: Category = Field(description="`user`: change the spec or the data; `system`: ours; `capacity`: wait.")
    retryable: bool = Field(description="Whether the same may succeed when it is tried again.")
    hint: str | None


def shown_of(row: SummaryRecord, fields: Collection[str]) -> dict[str, Any]:
    """The fields of a stored row as they are shown; those that it has not are left out."""
    error = None if row.error is None else row.error.model_dump()
    composed = {"status": row.state, "is_terminal": row.is_terminal, "error": error}
    shown = row.model_dump(include=set(fields) - composed.keys())
    return {**shown, **{name: value for name, value in composed.items() if name in fields}}
