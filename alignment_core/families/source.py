"""From a model source to a local diffusers folder whose contents have been checked."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, assert_never

from alignment_core.errors import ModelError
from alignment_core.families.file_hashes import FileHashes
from alignment_core.hub_errors import download_errors, hub_error
from alignment_core.spec import (
    AliasSource,
    CatalogSource,
    CheckpointSource,
    HubSource,
    LocalSource,
    SingleFileSource,
)
from alignment_core.spec.families import FAMILIES, FamilyName, family_of, refusal_of

ModelSource = CatalogSource | HubSource | LocalSource | SingleFileSource | CheckpointSource | AliasSource
_TRUSTED_LIBRARIES = {"diffusers", "transformers", None}
WEIGHED = tuple(dict.fromkeys(part for facts in FAMILIES.values() for part in facts.weighed))  # of any family
SHARD = r"-\d{5}-of-\d{5}"
_IGNORED = {"safety_checker", "feature_extractor"}  # replaced by None when the pipeline is loaded


@dataclass(frozen=True)
class ModelFolder:
    """A diffusers folder whose contents have been checked, and the variant of its weights that is read."""

    path: Path
    variant: str | None
    hashes: FileHashes = field(default_factory=FileHashes, compare=False)

    @property
    def family(self) -> FamilyName:
        """The family of its pipeline's class."""
        found = family_of(read_json(self.path / "model_index.json").get("_class_name"))
        assert found is not None, "the folder has been checked"
        return found

    def weight_files(self, component: str) -> list[Path]:
        """The safetensors files of a component: the variant's where it has some, those without a variant elsewhere."""
        files = sorted((self.path / component).glob("*.safetensors"))
        chosen = [file for file in files if self.variant and f".{self.variant}" in file.stem]
        return chosen or [file for file in files if "." not in file.stem]

    def config_files(self, component: str) -> list[Path]:
        """The JSON and text files of a component, but for the indices of sharded weights."""
        files = sorted((self.path / component).iterdir())
        return [file for file in files if file.suffix in (".json", ".txt") and ".index." not in file.name]

    @property
    def parts(self) -> tuple[str, ...]:
        """The folders that are read of a model, in the order of its hash: those that may be left out come last."""
        facts, index = FAMILIES[self.family], read_json(self.path / "model_index.json")
        always = [name for name in facts.text_encoders if name not in facts.optional]
        there = [name for name in facts.text_encoders if name in facts.optional and is_there(index, name)]
        of_texts = [*always, *map(_tokenizer_of, always), *there, *map(_tokenizer_of, there)]
        return (facts.denoiser, "scheduler", "vae", *of_texts)

    def model_fingerprint(self) -> str:
        """Identifies the whole model: every weight and config file that is read of it."""
        return self.fingerprint(self.parts)

    def fingerprint(self, components: tuple[str, ...]) -> str:
        """SHA-256 over the names and contents of everything that is read of the components."""
        digest = hashlib.sha256()
        for component in components:
            for path in [*self.config_files(component), *self.weight_files(component)]:
                digest.update(path.relative_to(self.path).as_posix().encode() + b"\0")
                digest.update(self.hashes.of(path))
        return digest.hexdigest()


def fetch_model(source: ModelSource, cache_dir: Path | None = None) -> ModelFolder:
    """The local folder of a diffusers pipeline: the path given, or a download from the Hub at the pinned commit.

    `cache_dir` remembers the hashes of its files from run to run.

    Raises `ModelError` when it is missing, is of no family that is trained, or names classes of its own code.
    """
    folder = local_folder(source)
    check_pipeline_folder(folder)
    return folder if cache_dir is None else replace(folder, hashes=FileHashes(cache_dir / "hashes"))


def local_folder(source: ModelSource) -> ModelFolder:
    """Where the source's files are on this machine, once they are; what is in them has not been looked at."""
    match source:
        case LocalSource():
            path = Path(source.path)
            return ModelFolder(path, only_variant(path))
        case HubSource():
            return ModelFolder(_download(source), source.variant)
        case CatalogSource():
            raise ModelError(
                "model_not_resolved",
                f"model.name {source.name!r}: the run was not told where its catalog models are",
            )
        case AliasSource(name=name):
            raise ModelError("model_not_resolved", f"model.name {name!r} is an alias, which a service alone knows")
        case SingleFileSource():
            raise AssertionError("it is unpacked before it is fetched")
        case CheckpointSource(id=found):
            raise ModelError(
                "model_not_resolved", f"model.id {found!r}: the run was not told where its service has this"
            )
        case _:
            assert_never(source)


def only_variant(path: Path) -> str | None:
    """The variant that a folder has its weights in, such as `fp16`, where some of its parts have them in no other form.

    None where every part has weights without a variant, and where several variants leave it open which is meant.
    """
    found: set[str] = set()
    for component in WEIGHED:
        stems = [file.stem for file in (path / component).glob("*.safetensors")]
        if stems and all("." in stem for stem in stems):
            variants = {re.sub(SHARD, "", stem).rpartition(".")[2] for stem in stems}
            found = found & variants if found else variants
            if not found:
                return None
    return found.pop() if len(found) == 1 else None


def _download(source: HubSource) -> Path:
    from diffusers import DiffusionPipeline

    try:
        return Path(
            DiffusionPipeline.download(
                source.repo_id, revision=source.revision, variant=source.variant, use_safetensors=True
            )
        )
    except download_errors() as error:
        what = f"the model {source.repo_id}@{source.revision[:12]}"
        raise hub_error(ModelError, what, "model_not_found", error) from error


def check_pipeline_folder(folder: ModelFolder) -> None:
    """Refuse folders of no family that is trained, that name code of their own, or whose weights are not safetensors."""
    index_path = folder.path / "model_index.json"
    if not index_path.is_file():
        raise ModelError("model_not_found", f"{folder.path}: expected a diffusers folder with a model_index.json")
    index = read_json(index_path)
    if (refusal := refusal_of(index.get("_class_name"))) is not None:
        raise ModelError("model_unsupported", f"{index_path}: {refusal}")
    for component, entry in index.items():
        if isinstance(entry, list) and component not in _IGNORED and not _is_trusted(entry):
            raise ModelError(
                "model_unsupported",
                f"{index_path}: {component} is {entry}; expected a class of diffusers or transformers",
            )
    facts = FAMILIES[folder.family]
    for component in facts.weighed:
        is_left_out = component in facts.optional and not is_there(index, component)
        if not is_left_out and not folder.weight_files(component):
            named = f"variant {folder.variant}" if folder.variant else "no variant in their names"
            raise ModelError(
                "model_unsupported",
                f"{folder.path / component}: expected weights as .safetensors with {named}; pickled weights are not read",
            )


def is_there(index: Mapping[str, Any], part: str) -> bool:
    """Whether a pipeline's index names a class for the part."""
    return index.get(part) not in (None, [None, None])


def _tokenizer_of(text_encoder: str) -> str:
    return text_encoder.replace("text_encoder", "tokenizer")


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file of a model folder holds; raises `ModelError` when it is missing or none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError("model_invalid", f"{path}: the file is missing") from error
    except ValueError as error:
        raise ModelError("model_invalid", f"{path}: not valid JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelError("model_invalid", f"{path}: expected a JSON object")
    return found


def _is_trusted(entry: list[Any]) -> bool:
    return len(entry) == 2 and entry[0] in _TRUSTED_LIBRARIES
