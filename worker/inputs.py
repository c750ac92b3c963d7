"""What a training process needs before it can start, put on this machine: datasets, prompts, the last checkpoint, its spec.

The process gets the spec as its owner wrote it, so that its hash is the same on every worker, and a checkpoint of one can
be resumed by another. Folders and files it sees through links in `inputs/` of its work folder.
"""

import hashlib
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from alignment_core.errors import AlignmentError
from alignment_core.model_files import UNPACKED_FROM, UnpackedFrom
from alignment_core.spec import Contest, JobSpec, SingleFileSource
from alignment_core.spec.places import Sources
from service.store import datasets, prompt_sets
from service.store.objects import ObjectNotFound
from service.store.records.base import StoredFile
from service.store.records.checkpoints import CheckpointRecord
from service.store.records.uploads import DatasetRecord, PromptSetRecord
from worker.parts import WorkerParts
from worker.patience import wait_out

INPUTS = "inputs"
LORA_FILE, PIPELINE = "pytorch_lora_weights.safetensors", "pipeline"  # of a checkpoint: a LoRA, a full fine-tune
KEEP_UNUSED_MODELS_SECONDS = 24 * 3600.0
SHA256 = re.compile(r"[0-9a-f]{64}")


def write_inputs(
    spec: JobSpec | Contest,
    sources: Sources,
    workdir: Path,
    command: Literal["run", "evaluate", "draw"] = "run",
) -> list[str]:
    """Write the spec as its owner wrote it, and beside it where its names are; the arguments of a run that reads both.

    Local sources are given as links in `workdir/inputs`, so that no message of the run names a path of this machine.
    """
    (workdir / INPUTS).mkdir(parents=True, exist_ok=True)
    spec_path, sources_path = workdir / "spec.json", workdir / "sources.json"
    spec_path.write_text(spec.model_dump_json(), encoding="utf-8")
    linked = _with_links(sources.model_dump(mode="json"), (), workdir)
    sources_path.write_text(json.dumps(linked), encoding="utf-8")
    return [command, str(spec_path), "--sources", str(sources_path)]


def fetch_dataset(parts: WorkerParts, dataset: DatasetRecord) -> Path:
    """The dataset's file in the cache, downloaded unless another job or its check left it there."""
    if dataset.object_key is None or dataset.sha256 is None or dataset.size_bytes is None:
        raise AlignmentError("dataset_missing", f"dataset {dataset.id} has no file: its upload has not ended")
    suffix = PurePosixPath(dataset.object_key).suffix
    target = _datasets_folder(parts) / f"{dataset.sha256}{suffix}"
    if not target.exists():
        file = StoredFile(
            path=target.name, size_bytes=dataset.size_bytes, sha256=dataset.sha256, object_key=dataset.object_key
        )
        fetch_files(parts, [file], target.parent)
    return target


def fetch_prompts(parts: WorkerParts, found: PromptSetRecord) -> Path:
    """The prompt set's file in the cache, downloaded unless another job left it there."""
    target = _prompts_folder(parts) / f"{found.file_sha256}.jsonl"
    if not target.exists():
        file = StoredFile(
            path=target.name, size_bytes=found.size_bytes, sha256=found.file_sha256, object_key=found.object_key
        )
        fetch_files(parts, [file], target.parent)
    return target


def remove_deleted_uploads(parts: WorkerParts) -> None:
    """Remove the files of datasets and prompt sets that no project has any more from this machine's cache."""
    _remove_unknown(_datasets_folder(parts), lambda found: datasets.known_files(parts.store, found))
    _remove_unknown(_prompts_folder(parts), lambda found: prompt_sets.known_files(parts.store, found))


def _remove_unknown(folder: Path, known_among: Callable[[list[str]], set[str]]) -> None:
    files = {path.stem: path for path in folder.glob("*") if SHA256.fullmatch(path.stem)}
    for sha256 in sorted(files.keys() - known_among(list(files))):
        files[sha256].unlink(missing_ok=True)


def remove_unused_models(parts: WorkerParts) -> None:
    """Remove what single files were unpacked to, where the catalog has no such file any more and no run had it for a day."""
    sources = [entry.source for entry in parts.catalog.models.values()]
    files = [Path(source.path) for source in sources if isinstance(source, SingleFileSource)]
    wanted = [UnpackedFrom.of(file) for file in files if file.is_file()]
    oldest = time.time() - KEEP_UNUSED_MODELS_SECONDS
    folder = parts.settings.resolved_cache_dir / "models"
    for note in folder.glob(f"*/{UNPACKED_FROM}"):
        if note.stat().st_mtime < oldest and UnpackedFrom.model_validate_json(note.read_bytes()) not in wanted:
            remove(note.parent)
    for leftover in folder.glob(".unpacking-*"):  # of processes that were killed
        if leftover.stat().st_mtime < oldest:
            remove(leftover)


def _prompts_folder(parts: WorkerParts) -> Path:
    return parts.settings.resolved_cache_dir / "prompt_sets"


def _datasets_folder(parts: WorkerParts) -> Path:
    return parts.settings.resolved_cache_dir / "datasets"


def fetch_checkpoint(parts: WorkerParts, checkpoint: CheckpointRecord, workdir: Path) -> Path:
    """Put a stored checkpoint, training state included, where the training process looks for it."""
    folder = workdir / "checkpoints" / f"step-{checkpoint.step:08d}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as temporary:
        whole = Path(temporary) / folder.name
        fetch_files(parts, checkpoint.files, whole)
        whole.rename(folder)
    return folder


def fetch_weights(parts: WorkerParts, checkpoint: CheckpointRecord, folder: Path) -> Path:
    """Put what a checkpoint trained into `folder`, as another run begins with it: the LoRA, or the whole model."""
    wanted = [file for file in checkpoint.files if file.path == LORA_FILE or file.path.startswith(f"{PIPELINE}/")]
    fetch_files(parts, wanted, folder)
    return folder


def _fetch(parts: WorkerParts, key: str, target: Path) -> None:
    wait_out(lambda: parts.objects.get_file(key, target), parts.settings, parts.asked, parts.waited)


def fetch_files(parts: WorkerParts, files: Sequence[StoredFile], folder: Path) -> None:
    """Download files into `folder`; each appears under its name only once its sha256 is right."""
    for file in files:
        target = folder / _inside(file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as temporary:
            partial = Path(temporary) / target.name
            try:
                _fetch(parts, file.object_key, partial)
            except ObjectNotFound as error:
                message = f"{file.path} is missing in the object store"
                raise AlignmentError("object_missing", message, category="system") from error
            if sha256_of(partial) != file.sha256:
                message = f"{file.path}: the object store returned other bytes than were stored (sha256 differs)"
                raise AlignmentError("object_altered", message, category="system", retryable=True)
            partial.replace(target)


def fetch_those_there(parts: WorkerParts, files: Sequence[StoredFile], folder: Path) -> None:
    """The same of files that a run can do without: those that were deleted since are left out."""
    for file in files:
        try:
            fetch_files(parts, [file], folder)
        except AlignmentError as error:
            if error.code not in ("object_missing", "object_altered"):
                raise


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(folder: Path) -> None:
    """Remove a work folder; what cannot be removed now is left to the sweep."""
    shutil.rmtree(folder, ignore_errors=True)


def _with_links(value: Any, place: tuple[str, ...], workdir: Path) -> Any:
    """`value` with the path of every local source replaced by a link named after its place."""
    match value:
        case {"type": "local", "path": str(path)}:
            return {**value, "path": _link(path, place, workdir)}
        case {"type": "single_file", "path": str(path), "config": config}:
            linked = None if config is None else _link(config, (*place, "config"), workdir)
            return {**value, "path": _link(path, place, workdir), "config": linked}
        case dict():
            return {key: _with_links(entry, (*place, key), workdir) for key, entry in value.items()}
        case list():
            return [_with_links(entry, (*place, str(index)), workdir) for index, entry in enumerate(value)]
        case _:
            return value


def _link(path: str, place: tuple[str, ...], workdir: Path) -> str:
    target = Path(path).absolute()
    if not target.exists():
        raise AlignmentError("path_missing", f"{'.'.join(place)}: this worker does not have it", category="system")
    link = workdir / INPUTS / ("-".join(place) + (target.suffix if target.is_file() else ""))
    link.symlink_to(target)
    return f"{INPUTS}/{link.name}"


def _inside(path: str) -> PurePosixPath:
    """A relative path without `..`: file names come from manifests that a training process wrote."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts:
        raise AlignmentError("path_outside", f"{path!r} is no relative path inside its folder", category="system")
    return pure
