"""Files that arrive piece by piece, over HTTP."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from alignment_core.spec import ColumnMapping
from alignment_core.spec.sources import WITHOUT_NUL, ColumnName, OnBadRow
from service.api.schemas.base import Entry, RequestBody, with_example
from service.api.schemas.datasets import DATASET_SHA256
from service.api.schemas.texts import NameForPeople
from service.store.records.uploads import UploadPurpose, UploadRecord, UploadState

UPLOAD_ID = "upl_01kaf0e4y6b8d0f2h4k6m8p0r2"
MOST_BYTES = 2**53 - 1  # that every JSON can tell

Filename = Annotated[
    str,
    StringConstraints(min_length=1, max_length=1000, pattern=WITHOUT_NUL),
    Field(description="What its owner calls it; its last part is shown, and never used as a path."),
]
SizeBytes = Annotated[int, Field(ge=1, le=MOST_BYTES, description="Of the whole file.")]
Sha256 = Annotated[
    Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None,
    Field(description="Of the whole file, where it is known: what arrived must then have it."),
]

UPLOAD_REQUEST_EXAMPLE: dict[str, Any] = {
    "purpose": "dataset",
    "filename": "pairs.parquet",
    "size_bytes": 3811204,
    "sha256": DATASET_SHA256,
    "name": "colourful shapes",
}


class DatasetUpload(RequestBody):
    """A parquet file or a zip that is to become a data set."""

    model_config = ConfigDict(json_schema_extra={"examples": [UPLOAD_REQUEST_EXAMPLE]})

    purpose: Literal["dataset"]
    filename: Filename
    size_bytes: SizeBytes
    sha256: Sha256 = None
    name: NameForPeople = None
    columns: ColumnMapping | None = Field(None, description="Which column is what, where its name does not say so.")
    on_bad_row: OnBadRow = Field(
        "fail",
        description="Whether a row with an error makes the data set unusable, or is left out, counted and named.",
    )


class WeightsUpload(RequestBody):
    """A safetensors file that is to become weights."""

    purpose: Literal["weights"]
    filename: Filename
    size_bytes: SizeBytes
    sha256: Sha256 = None
    name: NameForPeople = None


class PromptSetUpload(RequestBody):
    """Text, jsonl, JSON, CSV, TSV or parquet that is to become a prompt set."""

    purpose: Literal["prompt_set"]
    filename: Filename
    size_bytes: SizeBytes
    sha256: Sha256 = None
    name: NameForPeople = None
    column: ColumnName | None = Field(
        None, description="Which column or key holds the prompts, where its name is none of prompt, caption, text."
    )


UploadRequest = Annotated[DatasetUpload | WeightsUpload | PromptSetUpload, Field(discriminator="purpose")]

UPLOAD_EXAMPLE: dict[str, Any] = {
    "id": UPLOAD_ID,
    "object": "upload",
    "purpose": "dataset",
    "filename": "pairs.parquet",
    "name": "colourful shapes",
    "columns": None,
    "on_bad_row": "fail",
    "column": None,
    "size_bytes": 3811204,
    "sha256": DATASET_SHA256,
    "status": "receiving",
    "offset": 2097152,
    "resource_id": None,
    "created_at": "2026-11-20T09:13:40Z",
    "updated_at": "2026-11-20T09:13:58Z",
    "expires_at": "2026-11-21T09:13:58Z",
}


class Upload(Entry):
    """A file on its way."""

    model_config = with_example(UPLOAD_EXAMPLE)

    object: Literal["upload"] = "upload"
    purpose: UploadPurpose
    filename: str
    name: str | None
    columns: ColumnMapping | None = Field(description="Of a data set.")
    on_bad_row: OnBadRow | None = Field(description="Of a data set.")
    column: str | None = Field(description="Of a prompt set.")
    size_bytes: int
    sha256: str | None
    status: UploadState = Field(
        description="`receiving` until it is finished, also when all of it is here; `finishing` while something is made of it; `refused` "
        "where nothing can be, as `finish` says."
    )
    offset: int = Field(description="So many bytes have arrived; the next piece begins there.")
    resource_id: str | None = Field(description="Id of what it has become, once it is `finished`.")
    created_at: datetime
    updated_at: datetime
    expires_at: datetime = Field(description="When it is forgotten, with what has arrived; each piece puts it off.")

    @classmethod
    def of(cls, upload: UploadRecord) -> "Upload":
        shown = upload.model_dump(include=cls.model_fields.keys() - {"resource_id"})
        said = {name: upload.said.get(name) for name in ("name", "columns", "on_bad_row", "column")}
        became = upload.resource_id if upload.state == "finished" else None
        return cls.model_validate(
            {**shown, **said, "status": upload.state, "offset": upload.received_bytes, "resource_id": became}
        )
