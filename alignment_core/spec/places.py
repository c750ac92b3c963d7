"""Sources: where this machine has what a spec only names. Pure data, no torch.

A spec that came over HTTP names models and judges of the operator's catalog and datasets by id. It stays as it is, in
checkpoints and reports too, so that its hash means the same everywhere; the machine that trains looks the names up here.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field

from alignment_core.spec.base import Spec
from alignment_core.spec.candidates import CandidatesSpec
from alignment_core.spec.job import JobSpec
from alignment_core.spec.prompts import LocalPrompts, PromptSetId, PromptSetSource
from alignment_core.spec.proof import ContenderSpec, LocalDenoiser, ProofSpec, StoredDenoiser
from alignment_core.spec.rewards import AestheticReward, AttributeClassifierReward, ImageRewardReward
from alignment_core.spec.sources import (
    CatalogSource,
    CheckpointId,
    CheckpointSource,
    DatasetId,
    HubSource,
    LocalDataset,
    LocalSource,
    Name,
    SingleFileSource,
    StoredDataset,
    WeightsId,
)
from alignment_core.spec.start import LocalLora, StartSpec, StoredLora

WeightsReward = AttributeClassifierReward | ImageRewardReward | AestheticReward  # their `weights` are catalog rewards


class RunLabel(Spec):
    """What people call a run and its data; only its report and trackers say it."""

    job_id: str | None = None
    job_name: str | None = None
    dataset_name: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)  # of the job, for trackers


class FolderShards(Spec):
    """What is encoded of the run's data set lies in `folder`, at most `disk_bytes` of it, and in a folder that machines share."""

    type: Literal["folder"] = "folder"
    folder: str
    store: str
    disk_bytes: int | None = None


class AskedShards(Spec):
    """The same before a store that the worker is asked for, through the folder `exchange`."""

    type: Literal["asked"] = "asked"
    folder: str
    exchange: str
    disk_bytes: int | None = None


UNPACKED_DISK_BYTES = 32 * 2**30
PARTS_NOTE, PARTS_HASHES = "in_parts.json", "blocks.sha256"


class PartsNote(Spec):
    """In place of a data set's file, as `in_parts.json` in a folder with the SHA-256 of each block one after the other: where it can be
    read by ranges. A worker writes the folder; an upload is a file, and can be none."""

    sha256: str
    size_bytes: int
    block_bytes: int
    disk_bytes: int  # of it that may lie here, for each process
    exchange: str


class Sources(Spec):
    """Local folders, files and Hub commits for the catalog names and ids of a spec, and what the run is called."""

    label: RunLabel = RunLabel()

    models: dict[Name, Annotated[HubSource | LocalSource | SingleFileSource, Field(discriminator="type")]] = Field(
        default_factory=dict
    )
    rewards: dict[Name, LocalSource] = Field(default_factory=dict)
    datasets: dict[DatasetId, LocalDataset] = Field(default_factory=dict)
    weights: dict[WeightsId, LocalLora] = Field(default_factory=dict)
    prompt_sets: dict[PromptSetId, LocalPrompts] = Field(default_factory=dict)
    models_of_checkpoints: dict[CheckpointId, LocalSource] = Field(default_factory=dict)
    loras_of_checkpoints: dict[CheckpointId, LocalLora] = Field(default_factory=dict)
    shards: Annotated[FolderShards | AskedShards, Field(discriminator="type")] | None = None
    unpacked_disk_bytes: Annotated[int, Field(ge=1)] | None = (
        UNPACKED_DISK_BYTES  # of images that are copied out of parquet or Arrow
    )


AnySpec = TypeVar("AnySpec", JobSpec, ProofSpec, CandidatesSpec)


def localize(spec: AnySpec, sources: Sources) -> AnySpec:
    """The spec with every name that `sources` knows replaced by its place; other names stay as they are."""
    return type(spec).model_validate(_localized(spec, sources).model_dump())


def walk(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Every part of a spec with its JSON pointer, the outer ones first."""
    yield pointer, value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from walk(getattr(value, name), f"{pointer}/{name}")
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from walk(item, f"{pointer}/{index}")


def catalog_names(value: Any) -> Iterator[tuple[str, Literal["models", "rewards"], Name]]:
    """The catalog names that a part of a spec holds itself: their fields, and the sections that they are looked up in."""
    if isinstance(value, BaseModel):
        for field in type(value).model_fields:
            if isinstance(found := getattr(value, field), CatalogSource):
                is_weights = isinstance(value, WeightsReward) and field == "weights"
                yield field, "rewards" if is_weights else "models", found.name


def _localized(value: Any, sources: Sources) -> Any:
    match value:
        case StoredDataset(id=dataset_id):
            return sources.datasets.get(dataset_id, value)
        case StoredLora(id=weights_id):
            return sources.weights.get(weights_id, value)
        case PromptSetSource(id=prompt_set_id) if (place := sources.prompt_sets.get(prompt_set_id)) is not None:
            return place.model_copy(update={"sha256": value.sha256 or place.sha256})
        case StoredDenoiser(id=weights_id):
            file = sources.weights.get(weights_id)
            return value if file is None else LocalDenoiser(path=file.path)
        case CheckpointSource(id=checkpoint_id):
            return sources.models_of_checkpoints.get(checkpoint_id, value)
        case BaseModel():
            parts = {field: _localized(getattr(value, field), sources) for field in type(value).model_fields}
            for field, section, name in catalog_names(value):
                places = sources.rewards if section == "rewards" else sources.models
                parts[field] = places.get(name, parts[field])
            if isinstance(value, StartSpec | ContenderSpec) and isinstance(value.lora, CheckpointSource):
                parts["lora"] = sources.loras_of_checkpoints.get(value.lora.id, value.lora)
            return value.model_copy(update=parts)
        case tuple():
            return tuple(_localized(item, sources) for item in value)
        case _:
            return value
