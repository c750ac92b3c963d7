"""Checkpoints in the forms that other tools read."""

from pathlib import Path

from alignment_core.spec.exports import ExportFormat
from attune.connection import Connected
from attune.requests import FilePath, exports_path
from attune.resources.checkpoints import Export
from attune.result_files import save_export
from attune.waiting import until_ready


def export_checkpoint(client: Connected, checkpoint_id: str, format: ExportFormat) -> Export:
    """Ask for a checkpoint in another form; a worker makes it, once. One that failed is made anew."""
    answer = client.connection.request("POST", exports_path(checkpoint_id), json={"format": format})
    return Export.model_validate(answer)


def exports(client: Connected, checkpoint_id: str) -> list[Export]:
    """The forms that a checkpoint has been asked for in, whether they are ready or not."""
    return [Export.model_validate(entry) for entry in client.connection.pages(exports_path(checkpoint_id), [])]


def wait_for_export(
    client: Connected, checkpoint_id: str, format: ExportFormat, timeout_seconds: float = 3600.0
) -> Export:
    """The export once it is ready; `AttuneError` with its error when it failed, `TimeoutError` when neither."""
    path = f"{exports_path(checkpoint_id)}/{format}"
    return until_ready(
        lambda seconds: Export.model_validate(client.connection.poll(path, seconds)),
        f"the {format} export is",
        timeout_seconds,
    )


def download_export(client: Connected, checkpoint_id: str, target: FilePath, *, format: ExportFormat) -> Path:
    """Have a checkpoint made in another form, wait for it, and save it, each file checked against its sha256.

    `target` is the file to write for `kohya` and `single_file`, and a folder for the others.
    """
    export_checkpoint(client, checkpoint_id, format)
    export = wait_for_export(client, checkpoint_id, format)
    return save_export(client.connection, export, Path(target), format)


def delete_export(client: Connected, checkpoint_id: str, format: ExportFormat) -> None:
    """Remove a checkpoint's files in another form; they are made again when they are asked for."""
    client.connection.request("DELETE", f"{exports_path(checkpoint_id)}/{format}")
