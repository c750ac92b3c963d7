"""What an export tells: a stream of its own."""

from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from alignment_core.events.base import EventBase
from alignment_core.events.results import FileRecord
from alignment_core.events.run import RunFailed


class ExportProgressed(EventBase):
    """How far an export is, in percent of what it writes."""

    type: Literal["export_progressed"] = "export_progressed"
    percent: float


class ExportCompleted(EventBase):
    """Every file of the export, with its model card."""

    type: Literal["export_completed"] = "export_completed"
    files: list[FileRecord]


ExportEvent = Annotated[ExportProgressed | ExportCompleted | RunFailed, Field(discriminator="type")]

_export_adapter: TypeAdapter[ExportEvent] = TypeAdapter(ExportEvent)


def export_event_from_json(line: str | bytes) -> ExportEvent:
    """Parse one line that `python -m alignment_core export` printed; pydantic's `ValidationError` when it is none."""
    return _export_adapter.validate_json(line)
