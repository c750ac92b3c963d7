"""Checkpoints: what a user downloads and what a run needs to go on, in one folder.

    step-00000040/
        pytorch_lora_weights.safetensors    LoRA, as `pipeline.load_lora_weights` reads it, and once more as
        pytorch_lora_weights_kohya.safetensors    ComfyUI, A1111, InvokeAI and kohya's scripts do; or, of a full fine-tune,
        pipeline/                           a complete diffusers folder
        training_state/                     optimiser, reference and timestep state, loss scale
        manifest.json                       step, spec and every file with its size and sha256; written last

A folder is written under a temporary name and renamed when it is complete, so a folder with the final name is whole.
Random state is not part of it: every draw follows from the seed and the step (`seeds.py`).
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.optim import Optimizer

from alignment_core.errors import CheckpointError
from alignment_core.events import FileRecord
from alignment_core.shares import share_of, whole_in_first
from alignment_core.spec.training import Precision

MANIFEST = "manifest.json"
STATE = "training_state"
_TEMPORARY_PREFIX = ".writing-"


class Manifest(BaseModel):
    """What a checkpoint folder holds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1] = 1
    step: int
    kind: Literal["lora", "full"]
    is_final: bool
    is_best: bool = False
    result_step: int | None = None
    spec: dict[str, Any]
    spec_sha256: str
    base_model_sha256: str
    folder_sha256: str | None = None
    """Of the base model's folder; `base_model_sha256` has a LoRA that was merged into it too. None in older manifests."""
    dataset_sha256: str
    versions: dict[str, str]
    created_at: datetime
    files: list[FileRecord]


class TrainingState(BaseModel):
    """The small part of the training state; tensors stand in safetensors files beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    step: int
    loss_scaler: dict[str, int | float] | None = None  # GradScaler's growth_interval must stay an int
    batch_size: int | None = None  # of a forward pass, where it was found and not given
    is_compiled: bool | None = None  # what `training.compile` came to; None where it was not asked
    precision: Precision | None = None  # what `auto` came to; None in checkpoints from before there was a choice
    vae_precision: Precision = "fp32"  # in which images are encoded; older checkpoints had no other


def folder_of(checkpoints: Path, step: int) -> Path:
    """The folder of the checkpoint of optimiser step `step`."""
    return checkpoints / f"step-{step:08d}"


# --- writing -------------------------------------------------------------------------------------------------------


def begin(checkpoints: Path, step: int) -> Path:
    """An empty folder under a temporary name; leftovers of writes that were cut off are removed."""
    checkpoints.mkdir(parents=True, exist_ok=True)
    for leftover in checkpoints.glob(f"{_TEMPORARY_PREFIX}*"):
        shutil.rmtree(leftover)
    temporary = checkpoints / f"{_TEMPORARY_PREFIX}{folder_of(checkpoints, step).name}"
    (temporary / STATE).mkdir(parents=True)
    return temporary


def commit(temporary: Path, manifest: Manifest) -> Path:
    """Write the manifest of everything in `temporary`, make it durable, and give it its final name."""
    known = _linked_records(temporary.parent)
    files = [
        known.get(path.stat().st_ino) or record_of(temporary, path)
        for path in sorted(temporary.rglob("*"))
        if path.is_file()
    ]
    text = manifest.model_copy(update={"files": files}).model_dump_json(indent=2)
    (temporary / MANIFEST).write_text(text, encoding="utf-8")
    for path in temporary.rglob("*"):
        _sync(path)
    final = folder_of(temporary.parent, manifest.step)
    if final.exists():
        shutil.rmtree(final)
    temporary.rename(final)
    _sync(final.parent)
    return final


def take_over(path: Path, copy_of: Path) -> None:
    """Make `path` of a checkpoint that is being written a copy of a file that no step changes.

    The newest checkpoint's own copy is linked where there is one: a full fine-tune's frozen parts are on the disk once.
    """
    before = _in_newest(path)
    if before is not None and before.is_file() and before.stat().st_size == copy_of.stat().st_size:
        with contextlib.suppress(OSError):  # a file system without links
            path.hardlink_to(before)
            return
    shutil.copyfile(copy_of, path)


def _in_newest(path: Path) -> Path | None:
    """Where the newest checkpoint has what `path` is in the one that is being written; None outside of one."""
    folder = next((parent for parent in path.parents if parent.name.startswith(_TEMPORARY_PREFIX)), None)
    previous = folder and latest(folder.parent)
    return previous and folder and previous / path.relative_to(folder)


def _linked_records(checkpoints: Path) -> dict[int, FileRecord]:
    """Of the files that the newest checkpoint shares with others, by their inode: they are not read again."""
    newest = latest(checkpoints)
    if newest is None:
        return {}
    found = {(newest / record.path): record for record in read_manifest(newest).files}
    return {path.stat().st_ino: record for path, record in found.items() if path.stat().st_nlink > 1}


def record_of(folder: Path, path: Path) -> FileRecord:
    """Relative path, size and sha256 of one file of a checkpoint."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileRecord(path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=digest)


def new_manifest(
    *,
    step: int,
    kind: Literal["lora", "full"],
    is_final: bool,
    spec: dict[str, Any],
    spec_sha256: str,
    base_model_sha256: str,
    dataset_sha256: str,
    versions: dict[str, str],
    folder_sha256: str | None = None,
    is_best: bool = False,
    result_step: int | None = None,
) -> Manifest:
    """A manifest that `commit` completes with the files."""
    return Manifest(
        step=step,
        kind=kind,
        is_final=is_final,
        is_best=is_best,
        result_step=result_step,
        spec=spec,
        spec_sha256=spec_sha256,
        base_model_sha256=base_model_sha256,
        folder_sha256=folder_sha256,
        dataset_sha256=dataset_sha256,
        versions=versions,
        created_at=datetime.now(UTC),
        files=[],
    )


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies in the host's memory, which no step changes."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors of the host, none of which share memory, as safetensors; an empty mapping writes no file."""
    if tensors:
        save_file(dict(tensors), path)


def prune(checkpoints: Path, keep_last: int, keep_steps: Collection[int] = ()) -> None:
    """Remove all but the newest `keep_last` complete checkpoints and those of `keep_steps`."""
    kept = {folder_of(checkpoints, step) for step in keep_steps}
    for folder in complete(checkpoints)[:-keep_last]:
        if folder not in kept:
            shutil.rmtree(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- reading -------------------------------------------------------------------------------------------------------


def complete(checkpoints: Path) -> list[Path]:
    """The folders that have a manifest, oldest step first."""
    return sorted(path.parent for path in checkpoints.glob(f"step-*/{MANIFEST}"))


def is_complete(checkpoints: Path, step: int) -> bool:
    """Whether the checkpoint of `step` is there, and whole."""
    return (folder_of(checkpoints, step) / MANIFEST).is_file()


def latest(checkpoints: Path) -> Path | None:
    """The complete checkpoint with the highest step."""
    found = complete(checkpoints)
    return found[-1] if found else None


def read_manifest(folder: Path) -> Manifest:
    """Raises `CheckpointError` when the manifest is missing or malformed."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise CheckpointError("checkpoint_invalid", f"{folder / MANIFEST}: {error}") from error


def verify(folder: Path) -> Manifest:
    """Check every file of a checkpoint against its manifest; raises `CheckpointError` naming the first that differs."""
    manifest = read_manifest(folder)
    for expected in manifest.files:
        path = folder / expected.path
        if not path.is_file():
            raise CheckpointError("checkpoint_incomplete", f"{path}: the manifest lists this file, and it is missing")
        if record_of(folder, path) != expected:
            raise CheckpointError("checkpoint_altered", f"{path}: size or sha256 differs from the manifest's")
    return manifest


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file on the CPU; none when the file does not exist."""
    if not path.exists():
        return {}
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError("checkpoint_altered", f"{path}: not a safetensors file: {error}") from error


def save_state(folder: Path, state: TrainingState) -> None:
    (folder / STATE / "state.json").write_text(state.model_dump_json(indent=2), encoding="utf-8")


def load_state(folder: Path) -> TrainingState:
    path = folder / STATE / "state.json"
    try:
        return TrainingState.model_validate(json.loads(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise CheckpointError("checkpoint_invalid", f"{path}: {error}") from error


# --- the optimiser -------------------------------------------------------------------------------------------------


Slots = Mapping[str, Any]
"""What an optimiser keeps of a parameter: tensors and numbers by name, some of them in a mapping of their own."""


def optimizer_tensors(optimizer: Optimizer, names: list[str]) -> dict[str, Tensor]:
    """The state of an optimiser, whose parameters have these names in its order, as `parameter/key` -> tensor.

    What lies in shares the first process has, and no other.
    """
    state = optimizer.state_dict()["state"]
    return {f"{names[index]}/{key}": value for index, slots in state.items() for key, value in _flat(slots)}


def _flat(slots: Slots) -> Iterator[tuple[str, Tensor]]:
    for key, value in slots.items():
        if isinstance(value, Mapping):
            yield from ((f"{key}/{inner}", tensor) for inner, tensor in _flat(value))
        else:
            yield key, whole_in_first(torch.as_tensor(value))


def load_optimizer_tensors(optimizer: Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """Undo `optimizer_tensors`; raises `CheckpointError` when a parameter of the file is not in the model."""
    places = {name: index for index, name in enumerate(names)}
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        name, *path, slot = key.split("/")
        if name not in places:
            raise CheckpointError("checkpoint_altered", f"optimizer state of {name!r}: the model has no such parameter")
        slots = state.setdefault(places[name], {})
        for folder in path:
            slots = slots.setdefault(folder, {})
        slots[slot] = _as_kept(value, parameters[places[name]])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _as_kept(value: Tensor, parameter: Tensor) -> Tensor | int | float:
    """A count is a number; what is as large as its parameter lies in shares where that does."""
    if value.dim() == 0 and value.dtype == torch.int64:
        return value.item()
    return share_of(value, parameter) if value.shape == parameter.shape else value
