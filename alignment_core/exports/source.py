"""What an export is made of: a checkpoint, the model that it was trained from, and what people are told of both."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from alignment_core.checkpoints import MANIFEST, Manifest, read_manifest, record_of
from alignment_core.errors import CheckpointError, ModelError
from alignment_core.exports.model_folder import TrainedFolder
from alignment_core.exports.saved_lora import LORA_FILE, SavedLora
from alignment_core.exports.tables import keys_of
from alignment_core.families.keys import FamilyKeys
from alignment_core.families.single_file import in_a_folder
from alignment_core.families.source import ModelFolder, local_folder
from alignment_core.spec import JobSpec
from alignment_core.spec.places import Sources, localize

PIPELINE = "pipeline"
STATE = "training_state/"


@dataclass(frozen=True)
class ExportSource:
    """A checkpoint whose files are those of its manifest; the state that only training needs may be left out."""

    checkpoint: Path
    manifest: Manifest
    sources: Sources
    cache_dir: Path
    """Where a base model in one file is unpacked to."""

    @cached_property
    def spec(self) -> JobSpec:
        """The spec of the run, as its owner wrote it."""
        return JobSpec.model_validate(self.manifest.spec)

    @cached_property
    def lora(self) -> SavedLora:
        return SavedLora(self.checkpoint / LORA_FILE)

    @cached_property
    def base(self) -> ModelFolder:
        """The folder that training began from, or of a full fine-tune the one that it ended with.

        Raises `ModelError` for another model than the one that the LoRA belongs on.
        """
        if self.manifest.kind == "full":
            return ModelFolder(self.checkpoint / PIPELINE, None)
        folder = local_folder(in_a_folder(localize(self.spec, self.sources).model, self.cache_dir))
        keys_of(folder)  # it is of a family
        found, expected = folder.model_fingerprint(), self._base_sha256
        if expected is not None and found != expected:
            raise ModelError(
                "base_model_differs",
                f"the checkpoint was trained on a base model with the SHA-256 {expected}, and the one that is there now has {found}",
            )
        return folder

    @property
    def _base_sha256(self) -> str | None:
        """What the base model's folder was; None where an old manifest knows it with a LoRA merged alone."""
        start = self.spec.start
        is_bare = start is None or start.initial == "base"
        return self.manifest.folder_sha256 or (self.manifest.base_model_sha256 if is_bare else None)

    @cached_property
    def keys(self) -> FamilyKeys:
        return keys_of(self.base)

    @property
    def trained(self) -> TrainedFolder:
        return TrainedFolder(self.base, {} if self.manifest.kind == "full" else self.lora.components)


def open_checkpoint(checkpoint: Path, sources: Sources, cache_dir: Path) -> ExportSource:
    """Raises `CheckpointError` for a file that is missing or not the one that was saved."""
    manifest = read_manifest(checkpoint)
    for expected in manifest.files:
        path = checkpoint / expected.path
        if expected.path.startswith(STATE):
            continue
        if not path.is_file():
            raise CheckpointError("checkpoint_incomplete", f"{expected.path}: {MANIFEST} lists it, and it is missing")
        if record_of(checkpoint, path) != expected:
            raise CheckpointError("checkpoint_altered", f"{expected.path}: size or sha256 differs from {MANIFEST}'s")
    return ExportSource(checkpoint, manifest, sources, cache_dir)
