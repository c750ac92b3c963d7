"""LoRAs that jobs start from."""

from collections.abc import Iterator
from pathlib import Path

from attune.connection import Connected, segment
from attune.requests import FilePath, given
from attune.resources.data import Weights
from attune.uploads import Progress, upload
from attune.waiting import until_ready


def upload_weights(
    client: Connected,
    path: FilePath,
    *,
    name: str | None = None,
    idempotency_key: str | None = None,
    progress: Progress | None = None,
) -> Weights:
    """Upload a LoRA as safetensors, for jobs to start from; `wait_for_weights` waits for its check.

    A large file goes in pieces, as in `upload_dataset`.
    """
    said = given({"name": name or None})
    answer = upload(client.connection, "weights", Path(path), said, idempotency_key, progress)
    return Weights.model_validate(answer)


def weights(client: Connected) -> Iterator[Weights]:
    """Uploaded weights, newest first, page by page as they are needed."""
    return (Weights.model_validate(entry) for entry in client.connection.pages("/v1/weights", []))


def get_weights(client: Connected, weights_id: str, *, wait_seconds: float = 0) -> Weights:
    """The weights as they are, or as they are when their check has ended or `wait_seconds` are over."""
    return Weights.model_validate(client.connection.poll(f"/v1/weights/{segment(weights_id)}", wait_seconds))


def wait_for_weights(client: Connected, weights_id: str, timeout_seconds: float = 600.0) -> Weights:
    """The weights once they are ready; `AttuneError` with their error when they failed, `TimeoutError` when neither."""
    return until_ready(
        lambda seconds: get_weights(client, weights_id, wait_seconds=seconds),
        f"weights {weights_id} are",
        timeout_seconds,
    )


def delete_weights(client: Connected, weights_id: str) -> None:
    """Remove uploaded weights for good; refused while a job that has not ended needs them."""
    client.connection.request("DELETE", f"/v1/weights/{segment(weights_id)}")
