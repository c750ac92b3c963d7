"""From a model source to a local diffusers folder whose contents have been checked."""

import hashlib
import json
from pathlib import Path
from typing import assert_never

from alignment_core.errors import ModelError
from alignment_core.spec import CatalogSource, HubSource, LocalSource

_TRUSTED_LIBRARIES = {"diffusers", "transformers", None}
_IGNORED = {"safety_checker", "feature_extractor"}  # replaced by None when the pipeline is loaded


def fetch_model(source: CatalogSource | HubSource | LocalSource, pipeline_class: str) -> Path:
    """The local folder of a diffusers pipeline: the path given, or a download from the Hub at the pinned commit.

    Raises `ModelError` when it is missing, is another kind of pipeline, or names classes of its own code.
    """
    match source:
        case LocalSource():
            folder = Path(source.path)
        case HubSource():
            folder = _download(source)
        case CatalogSource():
            raise ModelError(
                "model_not_resolved",
                f"model.name {source.name!r}: names are resolved by the service, not by a local run",
            )
        case _:
            assert_never(source)
    check_pipeline_folder(folder, pipeline_class)
    return folder


def _download(source: HubSource) -> Path:
    from diffusers import DiffusionPipeline
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(
            DiffusionPipeline.download(
                source.repo_id, revision=source.revision, variant=source.variant, use_safetensors=True
            )
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            "model_not_found",
            f"model {source.repo_id}@{source.revision[:12]} could not be fetched from the Hub: {error}",
        ) from error


def check_pipeline_folder(folder: Path, pipeline_class: str) -> None:
    """Refuse folders that are no `pipeline_class`, that name code of their own, or whose weights are not safetensors."""
    index_path = folder / "model_index.json"
    if not index_path.is_file():
        raise ModelError("model_not_found", f"{folder}: expected a diffusers folder with a model_index.json")
    try:
        index = json.loads(index_path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError("model_invalid", f"{index_path}: not valid JSON: {error}") from error
    if index.get("_class_name") != pipeline_class:
        raise ModelError(
            "model_unsupported", f"{index_path}: expected {pipeline_class}, found {index.get('_class_name')!r}"
        )
    for component, entry in index.items():
        if isinstance(entry, list) and component not in _IGNORED and entry[0] not in _TRUSTED_LIBRARIES:
            raise ModelError(
                "model_unsupported",
                f"{index_path}: {component} is a class of {entry[0]!r}; expected one of diffusers or transformers",
            )
    for component in ("unet", "vae", "text_encoder"):
        if not any((folder / component).glob("*.safetensors")):
            raise ModelError(
                "model_unsupported",
                f"{folder / component}: expected weights as .safetensors; pickled weights are not read",
            )


def fingerprint(folder: Path, components: tuple[str, ...]) -> str:
    """SHA-256 over the names and contents of the JSON, text and safetensors files of a model folder's components."""
    digest = hashlib.sha256()
    for component in components:
        for path in sorted((folder / component).rglob("*")):
            if path.suffix in (".json", ".txt", ".safetensors") and path.is_file():
                digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
                with path.open("rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
