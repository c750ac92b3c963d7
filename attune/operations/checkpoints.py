"""Checkpoints: listed, downloaded, deleted."""

from collections.abc import Iterator
from pathlib import Path

from attune.connection import Connected
from attune.operations.jobs import get_job
from attune.requests import FilePath, checkpoint_path, job_path
from attune.resources.checkpoints import Checkpoint, CheckpointFile
from attune.result_files import WEIGHTS_FILES, WeightsFormat, files_of, save_checkpoint, save_weights


def checkpoints(client: Connected, job_id: str) -> list[Checkpoint]:
    """The job's checkpoints, the earliest step first."""
    return [
        Checkpoint.model_validate(entry) for entry in client.connection.pages(f"{job_path(job_id)}/checkpoints", [])
    ]


def get_checkpoint(client: Connected, checkpoint_id: str) -> Checkpoint:
    return Checkpoint.model_validate(client.connection.request("GET", checkpoint_path(checkpoint_id)))


def newest_checkpoints(client: Connected, job_id: str) -> Iterator[Checkpoint]:
    """The same, the latest step first, page by page as they are needed."""
    pages = client.connection.pages(f"{job_path(job_id)}/checkpoints", [("newest_first", "true")])
    return (Checkpoint.model_validate(one) for one in pages)


def result_checkpoint(client: Connected, job_id: str) -> str:
    """Id of the job's result; before training has ended the best checkpoint so far, or without probes the latest.

    `ValueError` while there is none.
    """
    job = get_job(client, job_id)
    if job.result_checkpoint_id is not None:
        return job.result_checkpoint_id
    found = next((one.id for one in checkpoints(client, job_id) if one.is_best), job.latest_checkpoint_id)
    if found is None:
        raise ValueError(f"{job_id} has no checkpoint yet")
    return found


def checkpoint_files(client: Connected, checkpoint_id: str) -> list[CheckpointFile]:
    return files_of(client.connection, checkpoint_id)


def download_checkpoint(
    client: Connected, checkpoint_id: str, folder: FilePath, *, with_training_state: bool = False
) -> Path:
    """Download a checkpoint into `folder`, each file checked against its sha256.

    What an interrupted call has left there is not fetched again. Training state is only of use to Attune itself.
    """
    return save_checkpoint(client.connection, checkpoint_id, Path(folder), with_training_state=with_training_state)


def download_weights(client: Connected, checkpoint_id: str, path: FilePath, *, format: WeightsFormat) -> Path:
    """Download a LoRA as the one file `path`: for diffusers, or for ComfyUI, A1111, InvokeAI and kohya's scripts.

    Raises `AttuneError` with the code `format_not_available` where the checkpoint has no such file.
    """
    return save_weights(client.connection, checkpoint_id, Path(path), format)


def has_weights(client: Connected, checkpoint_id: str, format: WeightsFormat) -> bool:
    """Whether training saved the LoRA as this one file, so that no worker is needed for it."""
    return any(file.path == WEIGHTS_FILES[format] for file in checkpoint_files(client, checkpoint_id))


def delete_checkpoint(client: Connected, checkpoint_id: str, *, even_result: bool = False) -> None:
    """Remove a checkpoint of a job that has ended; the job's result only with `even_result`."""
    params = {"even_result": "true"} if even_result else None
    client.connection.request("DELETE", checkpoint_path(checkpoint_id), params=params)
