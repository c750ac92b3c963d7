"""Checkpoints, and where they go."""

from typing import Literal

from attune.resources.base import Resource, ResourceError


class CheckpointFile(Resource):
    path: str
    size_bytes: int
    sha256: str


class Checkpoint(Resource):
    id: str
    job_id: str
    step: int
    kind: Literal["lora", "full"]
    is_final: bool
    is_best: bool = False
    is_pinned: bool = False
    size_bytes: int


class Export(Resource):
    """A checkpoint in another form, and how far it is."""

    id: str
    checkpoint_id: str
    format: str
    status: Literal["queued", "running", "ready", "failed"]
    percent: float
    files: list[CheckpointFile]
    error: ResourceError | None


class Push(Resource):
    """A checkpoint in a repository of the Hub; `commit` and `url` are there once it is pushed."""

    id: str
    checkpoint_id: str
    repo_id: str
    branch: str
    private: bool
    format: str
    status: Literal["queued", "running", "pushed", "failed"]
    commit: str | None
    url: str | None
    error: ResourceError | None
