"""Prompt sets over HTTP."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from alignment_core.prompt_files import PromptsReport
from service.api.schemas.base import Entry, with_example
from service.store.records.uploads import PromptSetRecord

PROMPT_SET_ID = "ps_01kaf0f6a2c4e6g8j0m2p4r6t8"

PROMPT_SET_EXAMPLE: dict[str, Any] = {
    "id": PROMPT_SET_ID,
    "object": "prompt_set",
    "name": "Parti prompts",
    "filename": "PartiPrompts.tsv",
    "num_prompts": 1632,
    "sha256": "0473ef2dc0d324ab659d3580c1134e9d812035905c4781fdd6d529b0c6860e13",
    "size_bytes": 128904,
    "file_sha256": "5b0ef8f2d4c6a1937e8f0b2c4d6e8fa01357bd9f02468ace13579bdf02468ace",
    "report": {
        "format": "tsv",
        "column": "Prompt",
        "num_rows": 1633,
        "num_prompts": 1632,
        "num_duplicates": 1,
        "duplicate_rows": [881],
        "num_empty": 0,
        "empty_rows": [],
        "sha256": "0473ef2dc0d324ab659d3580c1134e9d812035905c4781fdd6d529b0c6860e13",
    },
    "created_at": "2026-11-20T09:14:02Z",
}


class PromptSet(Entry):
    """Prompts that were uploaded: each once, in the order of the file. They never change."""

    model_config = with_example(PROMPT_SET_EXAMPLE)

    object: Literal["prompt_set"] = "prompt_set"
    name: str | None
    filename: str = Field(description="The last part of the name it was uploaded under; shown, never used as a path.")
    num_prompts: int
    sha256: str = Field(
        description="SHA-256 of the canonical JSON list of the prompts: the same prompts have it in whatever form they came."
    )
    size_bytes: int = Field(description="Of the jsonl file that a download gives.")
    file_sha256: str = Field(description="SHA-256 of that file.")
    report: PromptsReport = Field(description="What the file held, and which rows of it were left out.")
    created_at: datetime

    @classmethod
    def of(cls, found: PromptSetRecord) -> "PromptSet":
        return cls.model_validate(found.model_dump(include=set(cls.model_fields)))


class PromptOfSet(Entry):
    """A prompt of a set."""

    model_config = with_example({"id": "1", "object": "prompt", "prompt": "a red circle on a blue ground"})

    id: str = Field(description="Its place in the set, counted from 1.")
    object: Literal["prompt"] = "prompt"
    prompt: str
