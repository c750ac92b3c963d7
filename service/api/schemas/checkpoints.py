"""Checkpoints and their files over HTTP."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from alignment_core.events import FileRecord
from service.api.schemas.base import Entry, Resource, with_example
from service.api.schemas.job_examples import JOB_ID
from service.store.records.checkpoints import CheckpointRecord

CHECKPOINT_ID = "ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2"

CHECKPOINT_EXAMPLE: dict[str, Any] = {
    "id": CHECKPOINT_ID,
    "object": "checkpoint",
    "job_id": JOB_ID,
    "step": 400,
    "attempt": 1,
    "kind": "lora",
    "is_final": True,
    "is_best": False,
    "is_pinned": False,
    "size_bytes": 1482310,
    "num_files": 9,
    "created_at": "2026-11-20T09:16:40Z",
}


class Checkpoint(Entry):
    """The trained weights after some step, with the state that training goes on from."""

    model_config = with_example(CHECKPOINT_EXAMPLE)

    object: Literal["checkpoint"] = "checkpoint"
    job_id: str
    step: int = Field(description="Optimiser steps done when it was saved.")
    attempt: int = Field(description="The attempt that saved it.")
    kind: Literal["lora", "full"] = Field(
        description="`lora`: weights for `load_lora_weights`; `full`: a folder in the diffusers format."
    )
    is_final: bool = Field(description="Whether training ended with it.")
    is_best: bool = Field(description="Whether its probe has the highest held-out reward so far; false without probes.")
    is_pinned: bool = Field(description="Whether somebody keeps it from every policy and from deletion.")
    size_bytes: int = Field(description="Size of all files together.")
    num_files: int
    created_at: datetime

    @classmethod
    def of(cls, checkpoint: CheckpointRecord) -> "Checkpoint":
        shown = checkpoint.model_dump(include=cls.model_fields.keys() - {"num_files"})
        return cls.model_validate({**shown, "num_files": len(checkpoint.files)})


FILES_EXAMPLE: dict[str, Any] = {
    "object": "checkpoint_files",
    "checkpoint_id": CHECKPOINT_ID,
    "data": [
        {
            "path": "pytorch_lora_weights.safetensors",
            "size_bytes": 410336,
            "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        },
        {
            "path": "manifest.json",
            "size_bytes": 1830,
            "sha256": "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752",
        },
    ],
}


class CheckpointFiles(Resource):
    """Every file of a checkpoint, with what is needed to check it after a download."""

    model_config = with_example(FILES_EXAMPLE)

    object: Literal["checkpoint_files"] = "checkpoint_files"
    checkpoint_id: str
    data: list[FileRecord]

    @classmethod
    def of(cls, checkpoint: CheckpointRecord) -> "CheckpointFiles":
        files = [
            FileRecord(path=file.path, size_bytes=file.size_bytes, sha256=file.sha256) for file in checkpoint.files
        ]
        return cls(checkpoint_id=checkpoint.id, data=files)
