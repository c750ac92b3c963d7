"""What is uploaded: data sets and weights, prompts, files on their way."""

from datetime import datetime
from typing import Any, Literal

from alignment_core.prompt_files import PromptsReport
from alignment_core.spec import ColumnMapping
from alignment_core.spec.sources import OnBadRow
from service.store.records.base import JobError, Record

DatasetState = Literal["uploading", "checking", "ready", "failed"]
UploadKind = Literal["data", "lora"]  # preference data, or weights to start from
UploadPurpose = Literal["dataset", "weights", "prompt_set"]  # what a file is to become
UploadState = Literal["receiving", "finishing", "finished", "refused"]


class DatasetRecord(Record):
    id: str
    project_id: str
    name: str | None
    filename: str
    kind: UploadKind = "data"
    state: DatasetState
    size_bytes: int | None
    encoded_bytes: int = 0
    browsing_bytes: int = 0
    browsing_key: str | None = None
    sha256: str | None
    object_key: str | None
    columns: ColumnMapping | None = None
    on_bad_row: OnBadRow = "fail"
    format: str | None
    report: dict[str, Any] | None
    error: JobError | None
    provenance: dict[str, Any] | None = None
    attempt: int
    created_at: datetime
    updated_at: datetime


class Browsing(Record):
    """The object with the rows and thumbnails of a data set (`alignment_core/browsing.py`)."""

    object_key: str
    size_bytes: int


class DatasetClaim(Record):
    dataset: DatasetRecord
    attempt: int
    traceparent: str | None = None  # of what asked for it, where that was traced


class PromptSetRecord(Record):
    """Uploaded prompts; `sha256` is theirs in whatever form they came, `file_sha256` that of the file in the store."""

    id: str
    project_id: str
    name: str | None
    filename: str
    num_prompts: int
    sha256: str
    report: PromptsReport
    size_bytes: int
    file_sha256: str
    object_key: str
    created_at: datetime


class UploadRecord(Record):
    """A file that arrives piece by piece; `said` is what its owner says of it, `resource_id` what it becomes or has become.

    `refusal` is what was answered where that can never be.
    """

    id: str
    project_id: str
    purpose: UploadPurpose
    filename: str
    size_bytes: int
    sha256: str | None
    said: dict[str, Any]
    state: UploadState
    received_bytes: int
    num_pieces: int
    attempt: int
    resource_id: str | None
    refusal: dict[str, Any] | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
