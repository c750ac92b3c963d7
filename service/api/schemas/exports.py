"""Exports of checkpoints over HTTP."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from alignment_core.events import FileRecord
from alignment_core.spec.exports import ExportFormat
from service.api.schemas.base import Entry, RequestBody, with_example
from service.api.schemas.checkpoints import CHECKPOINT_ID
from service.api.schemas.job_examples import JOB_ID
from service.api.schemas.rows import JobError
from service.store.records.checkpoints import ExportRecord, ExportState

EXPORT_EXAMPLE: dict[str, Any] = {
    "id": "exp_01kaf0p7c2e5g8j1m4q7s0v3x6",
    "object": "export",
    "checkpoint_id": CHECKPOINT_ID,
    "job_id": JOB_ID,
    "format": "kohya",
    "status": "ready",
    "percent": 100.0,
    "size_bytes": 412480,
    "files": [
        {
            "path": "README.md",
            "size_bytes": 1312,
            "sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
        },
        {
            "path": "lora.safetensors",
            "size_bytes": 411168,
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        },
    ],
    "error": None,
    "created_at": "2026-11-20T09:20:00Z",
    "updated_at": "2026-11-20T09:20:09Z",
}


class Export(Entry):
    """A checkpoint in a form that other tools read, with its model card; made once, then kept with the checkpoint."""

    model_config = with_example(EXPORT_EXAMPLE)

    object: Literal["export"] = "export"
    checkpoint_id: str
    job_id: str
    format: ExportFormat
    status: ExportState = Field(description="It can be downloaded when it is `ready`.")
    percent: float = Field(description="How far it is.")
    size_bytes: int = Field(description="Size of all files together; 0 until they are there.")
    files: list[FileRecord] = Field(description="Every file with its size and SHA-256, once it is `ready`.")
    error: JobError | None = Field(description="Set when `status` is `failed`.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, export: ExportRecord) -> "Export":
        shown = export.model_dump(include=cls.model_fields.keys() - {"status", "size_bytes", "files"})
        files = [FileRecord(path=one.path, size_bytes=one.size_bytes, sha256=one.sha256) for one in export.files]
        size = sum(file.size_bytes for file in files)
        return cls.model_validate({**shown, "status": export.state, "size_bytes": size, "files": files})


class ExportRequest(RequestBody):
    """Which form is wanted."""

    model_config = with_example({"format": "kohya"})

    format: ExportFormat = Field(description="docs/exports.md says which tool takes which.")
