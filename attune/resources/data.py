"""What is uploaded: data sets with their rows, prompts, weights."""

from datetime import datetime
from typing import Any, Literal

from alignment_core.prompt_files import PromptsReport
from alignment_core.reports import WeightsReport
from attune.resources.base import Resource, ResourceError


class Dataset(Resource):
    id: str
    name: str | None
    filename: str
    status: Literal["uploading", "checking", "ready", "failed"]
    size_bytes: int | None
    encoded_bytes: int = 0
    browsing_bytes: int = 0
    sha256: str | None
    columns: dict[str, str] | None = None
    num_usable_rows: int | None
    error: ResourceError | None
    provenance: dict[str, Any] | None = None


class PairProblem(Resource):
    """What the check of a data set says of one row."""

    code: str
    severity: Literal["error", "warning"]
    message: str


class PairImage(Resource):
    """An image of a row; `thumbnail_url` is None where no small picture of it is kept."""

    width: int
    height: int
    thumbnail_url: str | None


class Pair(Resource):
    """A row of a data set, with what its check says of it; in one of single images `image` is set, else `chosen` and `rejected`."""

    id: str
    row: int
    is_usable: bool
    prompt: str | None
    label: float | None
    liked: bool | None
    score: float | None
    group_id: str | None
    swapped: bool
    chosen: PairImage | None
    rejected: PairImage | None
    image: PairImage | None
    problems: list[PairProblem]


class Weights(Resource):
    id: str
    name: str | None
    filename: str
    status: Literal["uploading", "checking", "ready", "failed"]
    size_bytes: int | None
    sha256: str | None
    report: WeightsReport | None
    error: ResourceError | None


class PromptSet(Resource):
    """Uploaded prompts; `sha256` is theirs, `file_sha256` that of the jsonl file which a download gives."""

    id: str
    name: str | None
    filename: str
    num_prompts: int
    sha256: str
    size_bytes: int
    file_sha256: str
    report: PromptsReport
    created_at: datetime


class Upload(Resource):
    """A file on its way; the next piece begins at `offset`, and `resource_id` is what it has become."""

    id: str
    purpose: str
    filename: str
    name: str | None
    size_bytes: int
    sha256: str | None
    status: str
    offset: int
    resource_id: str | None
    created_at: datetime
    expires_at: datetime
