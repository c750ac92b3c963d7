"""What a job made, as files on this machine, each checked against its sha256."""

import io
import zipfile
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from alignment_core.spec.exports import ONE_FILE, ExportFormat
from attune.connection import Connection
from attune.downloads import download_file, inside
from attune.errors import AttuneError
from attune.requests import checkpoint_path, exports_path
from attune.resources.checkpoints import CheckpointFile, Export

TRAINING_STATE = "training_state/"

WeightsFormat = Literal["safetensors", "kohya"]
WEIGHTS_FILES: dict[WeightsFormat, str] = {
    "safetensors": "pytorch_lora_weights.safetensors",
    "kohya": "pytorch_lora_weights_kohya.safetensors",
}


def files_of(connection: Connection, checkpoint_id: str) -> list[CheckpointFile]:
    answer = connection.request("GET", f"{checkpoint_path(checkpoint_id)}/files")
    return [CheckpointFile.model_validate(file) for file in answer["data"]]


def save_checkpoint(connection: Connection, checkpoint_id: str, folder: Path, *, with_training_state: bool) -> Path:
    """Every file of a checkpoint under its own name; what an interrupted call has left there is not fetched again."""
    for file in files_of(connection, checkpoint_id):
        if with_training_state or not file.path.startswith(TRAINING_STATE):
            url = f"{checkpoint_path(checkpoint_id)}/files/{quote(file.path)}"
            download_file(connection.http, url, file, folder / inside(file.path))
    return folder


def save_weights(connection: Connection, checkpoint_id: str, path: Path, format: WeightsFormat) -> Path:
    """The LoRA as the one file `path`; `AttuneError` with the code `format_not_available` where there is no such file."""
    name = WEIGHTS_FILES[format]
    file = next((file for file in files_of(connection, checkpoint_id) if file.path == name), None)
    if file is None:
        raise AttuneError({"code": "format_not_available", "detail": f"checkpoint {checkpoint_id} has no {name}"})
    return download_file(connection.http, f"{checkpoint_path(checkpoint_id)}/files/{quote(name)}", file, path)


def unpack(archive: bytes, folder: Path) -> Path:
    """Every file of a zip under its own name."""
    with zipfile.ZipFile(io.BytesIO(archive)) as members:
        for name in members.namelist():
            path = folder / inside(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(members.read(name))
    return folder


def save_export(connection: Connection, export: Export, target: Path, format: ExportFormat) -> Path:
    """An export that is ready: as the file `target` where the form is one file, else in the folder `target`."""
    for file in export.files:
        url = f"{exports_path(export.checkpoint_id)}/{format}/files/{quote(file.path)}"
        if format not in ONE_FILE:
            download_file(connection.http, url, file, target / inside(file.path))
        elif file.path == ONE_FILE[format]:
            download_file(connection.http, url, file, target)
    return target
