"""Sources: where this machine has what a spec only names. Pure data, no torch.

A spec that came over HTTP names models and judges of the operator's catalog and datasets by id. It stays as it is, in
checkpoints and reports too, so that its hash means the same everywhere; the machine that trains looks the names up here.
"""

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import BaseModel, Field

from alignment_core.spec import (
    AttributeClassifierReward,
    CatalogSource,
    DatasetId,
    HubSource,
    JobSpec,
    LocalDataset,
    LocalSource,
    Name,
    Spec,
    StoredDataset,
)


class Sources(Spec):
    """Local folders, files and Hub commits for the catalog names and dataset ids of a spec."""

    models: dict[Name, Annotated[HubSource | LocalSource, Field(discriminator="type")]] = Field(default_factory=dict)
    rewards: dict[Name, LocalSource] = Field(default_factory=dict)
    datasets: dict[DatasetId, LocalDataset] = Field(default_factory=dict)


def localize(spec: JobSpec, sources: Sources) -> JobSpec:
    """The spec with every name that `sources` knows replaced by its place; other names stay as they are."""
    return JobSpec.model_validate(_localized(spec, sources).model_dump())


def walk(value: Any, pointer: str = "") -> Iterator[tuple[str, Any]]:
    """Every part of a spec with its JSON pointer, the outer ones first."""
    yield pointer, value
    if isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from walk(getattr(value, name), f"{pointer}/{name}")
    elif isinstance(value, tuple):
        for index, item in enumerate(value):
            yield from walk(item, f"{pointer}/{index}")


def _localized(value: Any, sources: Sources) -> Any:
    match value:
        case AttributeClassifierReward(weights=CatalogSource(name=name)):
            return value.model_copy(update={"weights": sources.rewards.get(name, value.weights)})
        case CatalogSource(name=name):
            return sources.models.get(name, value)
        case StoredDataset(id=dataset_id):
            return sources.datasets.get(dataset_id, value)
        case BaseModel():
            parts = {name: getattr(value, name) for name in type(value).model_fields}
            return value.model_copy(update={name: _localized(part, sources) for name, part in parts.items()})
        case tuple():
            return tuple(_localized(item, sources) for item in value)
        case _:
            return value
