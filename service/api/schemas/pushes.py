"""Pushes of checkpoints to the Hub over HTTP."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from alignment_core.spec.exports import ExportFormat
from service.api.schemas.base import Entry, RequestBody, with_example
from service.api.schemas.checkpoints import CHECKPOINT_ID
from service.api.schemas.job_examples import JOB_ID
from service.api.schemas.rows import JobError
from service.store.records.checkpoints import PushRecord, PushState

PUSH_ID = "psh_01kaf0q8d3f6h9k2n5r8t1w4y7"
COMMIT = "5f2a9e1c7b3d4f6081929aabbccddeeff0011223"
REPO_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$"
BRANCH_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

PUSH_EXAMPLE: dict[str, Any] = {
    "id": PUSH_ID,
    "object": "push",
    "checkpoint_id": CHECKPOINT_ID,
    "job_id": JOB_ID,
    "repo_id": "our-team/shapes-aligned",
    "branch": "main",
    "private": True,
    "format": "diffusers",
    "status": "pushed",
    "commit": COMMIT,
    "url": f"https://huggingface.co/our-team/shapes-aligned/commit/{COMMIT}",
    "error": None,
    "created_at": "2026-11-20T09:30:00Z",
    "updated_at": "2026-11-20T09:30:21Z",
}


class Push(Entry):
    """A checkpoint in a repository of the Hub, with its model card; one for each checkpoint, repository and branch."""

    model_config = with_example(PUSH_EXAMPLE)

    object: Literal["push"] = "push"
    checkpoint_id: str
    job_id: str
    repo_id: str
    branch: str
    private: bool = Field(description="Whether the repository is made as a private one, where it is yet to be made.")
    format: ExportFormat
    status: PushState
    commit: str | None = Field(description="Hash of the commit, once it is `pushed`.")
    url: str | None = Field(description="Where the commit is.")
    error: JobError | None = Field(description="Set when `status` is `failed`.")
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, push: PushRecord) -> "Push":
        shown = push.model_dump(include=cls.model_fields.keys() - {"status", "private"})
        return cls.model_validate({**shown, "status": push.state, "private": push.is_private})


class PushRequest(RequestBody):
    """Where the checkpoint goes."""

    model_config = with_example({"repo_id": "our-team/shapes-aligned"})

    repo_id: str = Field(pattern=REPO_PATTERN, description="Namespace and name; the operator says which namespaces.")
    branch: str = Field(default="main", pattern=BRANCH_PATTERN, description="Made from `main` where it is not there.")
    private: bool = Field(default=True, description="Of a repository that is yet to be made.")
    format: ExportFormat | None = Field(
        default=None, description="`diffusers` of a LoRA and `merged` of a whole model, when left out."
    )
