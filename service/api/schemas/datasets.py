"""Data sets over HTTP."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from alignment_core.reports import DatasetReport
from alignment_core.spec import ColumnMapping
from alignment_core.spec.sources import OnBadRow
from service.api.schemas.base import Entry, with_example
from service.api.schemas.job_examples import DATASET_ID
from service.api.schemas.rows import JobError
from service.store.records.uploads import DatasetRecord, DatasetState

DATASET_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

DATASET_EXAMPLE: dict[str, Any] = {
    "id": DATASET_ID,
    "object": "dataset",
    "name": "colourful shapes",
    "filename": "pairs.parquet",
    "status": "checking",
    "size_bytes": 3811204,
    "encoded_bytes": 0,
    "browsing_bytes": 0,
    "sha256": DATASET_SHA256,
    "columns": None,
    "on_bad_row": "fail",
    "format": None,
    "num_usable_rows": None,
    "error": None,
    "provenance": None,
    "created_at": "2026-11-20T09:14:02Z",
    "updated_at": "2026-11-20T09:14:02Z",
}


class Dataset(Entry):
    """Preference pairs that were uploaded."""

    model_config = with_example(DATASET_EXAMPLE)

    object: Literal["dataset"] = "dataset"
    name: str | None
    filename: str = Field(description="The last part of the name it was uploaded under; shown, never used as a path.")
    status: DatasetState = Field(description="A job may name it when it is `ready`.")
    size_bytes: int | None
    encoded_bytes: int = Field(
        description="What the object store holds of its images and prompts as jobs have encoded them; 0 where workers do not share that."
    )
    browsing_bytes: int = Field(
        description="What the object store holds of its rows and their thumbnails, for people to browse; 0 until its check has ended, and for "
        "what an earlier version checked."
    )
    sha256: str | None
    columns: ColumnMapping | None = Field(description="Which column is what, as it was said at the upload.")
    on_bad_row: OnBadRow
    format: str | None = Field(
        description="The form of the files or the published schema, as in the report, once it was looked into."
    )
    num_usable_rows: int | None = Field(description="From the preflight report, once there is one.")
    error: JobError | None = Field(description="Set when `status` is `failed`.")
    provenance: dict[str, Any] | None = Field(
        None,
        description="Of one that was made of a labeling: the labeling, its candidates, models, seeds and settings.",
    )
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, dataset: DatasetRecord) -> "Dataset":
        shown = dataset.model_dump(include=cls.model_fields.keys() - {"status", "num_usable_rows"})
        rows = None if dataset.report is None else dataset.report.get("num_usable_rows")
        return cls.model_validate({**shown, "status": dataset.state, "num_usable_rows": rows})


DATASET_REPORT_EXAMPLE: dict[str, Any] = DatasetReport.model_validate(
    {
        "format": "parquet",
        "num_rows": 2001,
        "num_usable_rows": 2000,
        "num_groups": 2000,
        "num_unique_prompts": 192,
        "num_empty_prompts": 0,
        "num_ties": 0,
        "num_soft_labels": 0,
        "num_swapped": 0,
        "chosen_first_share": None,
        "image_sizes": {"32x32": 4000},
        "size_bytes": 3811204,
        "content_sha256": DATASET_SHA256,
        "problems": [
            {
                "code": "identical_images",
                "severity": "warning",
                "message": "chosen and rejected are the same image, which teaches nothing",
                "count": 1,
                "rows": [1312],
            }
        ],
    }
).model_dump(mode="json")
