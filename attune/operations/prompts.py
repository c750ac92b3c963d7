"""Sets of prompts."""

from collections.abc import Iterator
from pathlib import Path

from attune.connection import Connected
from attune.downloads import download_file
from attune.requests import FilePath, given, prompt_set_path
from attune.resources.checkpoints import CheckpointFile
from attune.resources.data import PromptSet
from attune.uploads import Progress, upload


def upload_prompts(
    client: Connected,
    path: FilePath,
    *,
    name: str | None = None,
    column: str | None = None,
    idempotency_key: str | None = None,
    progress: Progress | None = None,
) -> PromptSet:
    """Upload prompts, as text, jsonl, JSON, CSV, TSV or parquet, for specs to name: `"prompts": "ps_..."`.

    `column` says which column or key holds them where its name does not. `AttuneError` names the rows that cannot be read.
    A large file goes in pieces, as in `upload_dataset`.
    """
    said = given({"name": name or None, "column": column})
    answer = upload(client.connection, "prompt_set", Path(path), said, idempotency_key, progress)
    return PromptSet.model_validate(answer)


def prompt_sets(client: Connected) -> Iterator[PromptSet]:
    """Prompt sets, newest first, page by page as they are needed."""
    return (PromptSet.model_validate(entry) for entry in client.connection.pages("/v1/prompt_sets", []))


def get_prompt_set(client: Connected, prompt_set_id: str) -> PromptSet:
    return PromptSet.model_validate(client.connection.request("GET", prompt_set_path(prompt_set_id)))


def prompts(client: Connected, prompt_set_id: str) -> Iterator[str]:
    """The prompts of a set, the first of its file first, page by page as they are needed."""
    path = f"{prompt_set_path(prompt_set_id)}/prompts"
    return (entry["prompt"] for entry in client.connection.pages(path, []))


def download_prompts(client: Connected, prompt_set_id: str, path: FilePath) -> Path:
    """Save a prompt set as `path`: jsonl, an object with the key `prompt` a line."""
    found = get_prompt_set(client, prompt_set_id)
    file = CheckpointFile(path="prompts.jsonl", size_bytes=found.size_bytes, sha256=found.file_sha256)
    return download_file(client.connection.http, f"{prompt_set_path(prompt_set_id)}/file", file, Path(path))


def delete_prompts(client: Connected, prompt_set_id: str) -> None:
    """Remove a prompt set for good; refused while a job that has not ended needs it."""
    client.connection.request("DELETE", prompt_set_path(prompt_set_id))
