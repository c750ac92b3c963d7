"""Uploaded weights over HTTP."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from alignment_core.reports import WeightsReport
from service.api.schemas.base import Entry, with_example
from service.api.schemas.rows import JobError
from service.store.records.uploads import DatasetRecord, DatasetState

WEIGHTS_ID = "wts_01kaf0f6a2c4e6g8j0m2p4r6t8"

WEIGHTS_EXAMPLE: dict[str, Any] = {
    "id": WEIGHTS_ID,
    "object": "weights",
    "name": "my style",
    "filename": "style.safetensors",
    "status": "ready",
    "size_bytes": 3231640,
    "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "report": {
        "format": "kohya",
        "num_layers": 192,
        "ranks": [8],
        "alphas": [4.0],
        "changes_text_encoder": False,
        "says_alpha": True,
    },
    "error": None,
    "created_at": "2026-11-20T09:14:02Z",
    "updated_at": "2026-11-20T09:14:05Z",
}


class Weights(Entry):
    """A LoRA that was uploaded to start from."""

    model_config = with_example(WEIGHTS_EXAMPLE)

    object: Literal["weights"] = "weights"
    name: str | None
    filename: str = Field(description="The last part of the name it was uploaded under; shown, never used as a path.")
    status: DatasetState = Field(description="A job may name them when they are `ready`.")
    size_bytes: int | None
    sha256: str | None
    report: WeightsReport | None = Field(description="What they hold, once they were looked into.")
    error: JobError | None = Field(description="Set when `status` is `failed`.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, weights: DatasetRecord) -> "Weights":
        shown = weights.model_dump(include=cls.model_fields.keys() - {"status"})
        report = weights.report and {
            name: one for name, one in weights.report.items() if name in WeightsReport.model_fields
        }
        return cls.model_validate({**shown, "report": report, "status": weights.state})
