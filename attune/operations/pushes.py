"""Checkpoints in repositories of the Hub."""

from alignment_core.spec.exports import ExportFormat
from attune.connection import Connected, segment
from attune.requests import given, pushes_path
from attune.resources.checkpoints import Push
from attune.waiting import until_ready


def push_checkpoint(
    client: Connected,
    checkpoint_id: str,
    repo_id: str,
    *,
    branch: str = "main",
    private: bool = True,
    format: ExportFormat | None = None,
) -> Push:
    """Have a worker commit a checkpoint to a repository of the Hub, with its model card; once for each repository and branch."""
    body = {"repo_id": repo_id, "branch": branch, "private": private, **given({"format": format})}
    return Push.model_validate(client.connection.request("POST", pushes_path(checkpoint_id), json=body))


def wait_for_push(client: Connected, push: Push, timeout_seconds: float = 3600.0) -> Push:
    """The push once it is there; `AttuneError` with its error when it failed, `TimeoutError` when neither."""
    path = f"{pushes_path(push.checkpoint_id)}/{segment(push.id)}"
    return until_ready(
        lambda seconds: Push.model_validate(client.connection.poll(path, seconds)), "the push is", timeout_seconds
    )


def pushes(client: Connected, checkpoint_id: str) -> list[Push]:
    """Where a checkpoint was pushed, or is to be."""
    return [Push.model_validate(entry) for entry in client.connection.pages(pushes_path(checkpoint_id), [])]


def delete_push(client: Connected, checkpoint_id: str, push_id: str) -> None:
    """Forget a push; what the Hub has stays there, and asking for it again pushes again."""
    client.connection.request("DELETE", f"{pushes_path(checkpoint_id)}/{segment(push_id)}")
