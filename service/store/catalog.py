"""Catalog: the models and rewards that the server's operator offers by name, from one JSON file.

    {"models": {"shapes": {"type": "local", "path": "model", "family": "sd", "resolution": 32, "description": "..."}},
     "rewards": {"shapes-judge": {"type": "attribute_classifier", "path": "classifiers/judge", "judge_only": true,
                                  "description": "..."}}}

Relative paths start at the file's folder. The API checks specs against the catalog, the worker looks the names up on its
own machine (`alignment_core.spec.places`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, assert_never

from pydantic import Field, ValidationError, model_validator

from alignment_core.spec import (
    CheckpointSource,
    ColumnMapping,
    ContenderSpec,
    HubDataset,
    HubSource,
    JobSpec,
    LocalDataset,
    LocalDenoiser,
    LocalLora,
    LocalPrompts,
    LocalSource,
    Name,
    PromptSetSource,
    RemoteReward,
    SingleFileSource,
    Spec,
    StoredDataset,
    StoredDenoiser,
    StoredLora,
)
from alignment_core.spec.families import FamilyName, served
from alignment_core.spec.places import RunLabel, Sources, WeightsReward, catalog_names, walk
from alignment_core.spec.sources import OnBadRow
from service.store.model_recipes import check_recipe

Family = FamilyName | Literal["clip"]


class CatalogModel(Spec):
    """What every model entry says of its model. A `clip` scores images; the other families are trained, where `spec/families.py` says so."""

    family: Family
    resolution: int = Field(ge=8, description="Pixels of the side that the model draws, or reads.")
    description: str = ""
    recipes: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="By method, parts of a spec that the operator recommends for this model."
    )

    @model_validator(mode="after")
    def _recipes_are_parts_of_specs(self) -> Self:
        for method, recipe in self.recipes.items():
            check_recipe(method, recipe)
        return self


class LocalModel(CatalogModel):
    type: Literal["local"]
    path: Path

    @property
    def source(self) -> LocalSource:
        return LocalSource(path=str(self.path))


class HubModel(CatalogModel):
    type: Literal["hub"]
    repo_id: str
    revision: str
    variant: Name | None = None

    @model_validator(mode="after")
    def _is_a_pinned_source(self) -> Self:
        _ = self.source  # HubSource has the rules for the repository and the commit, and refuses what breaks them
        return self

    @property
    def source(self) -> HubSource:
        return HubSource(repo_id=self.repo_id, revision=self.revision, variant=self.variant)


class SingleFileModel(CatalogModel):
    """A `.safetensors` file under the original names; `config` is a diffusers folder, for what is not shaped as the published models."""

    type: Literal["single_file"]
    path: Path
    config: Path | None = None

    @model_validator(mode="after")
    def _is_of_a_family_with_single_files(self) -> Self:
        if self.family not in ("sd", "sdxl"):
            raise ValueError(f"family {self.family!r} has no files that are read; expected sd or sdxl")
        return self

    @property
    def source(self) -> SingleFileSource:
        return SingleFileSource(path=str(self.path), config=None if self.config is None else str(self.config))


class CatalogReward(Spec):
    """Weights of the reward of this type. Ones that are `judge_only` may score an evaluation and train nothing."""

    type: Literal["attribute_classifier", "image_reward", "aesthetic"]
    path: Path
    description: str = ""
    judge_only: bool = False

    @property
    def source(self) -> LocalSource:
        return LocalSource(path=str(self.path))


CatalogEntry = Annotated[LocalModel | HubModel | SingleFileModel, Field(discriminator="type")]


class Catalog(Spec):
    models: dict[Name, CatalogEntry] = Field(default_factory=dict)
    rewards: dict[Name, CatalogReward] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | None) -> "Catalog":
        """Read the operator's file; an empty catalog without one. `ValueError` names the file and the field."""
        if path is None:
            return cls()
        try:
            found = cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ValueError(f"catalog {path} cannot be read: {error.strerror}") from error
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            raise ValueError(f"catalog {path}, field {field or '(top)'}: {first['msg']}") from error
        return _resolved(found, path.absolute().parent)


@dataclass(frozen=True)
class SpecProblem:
    """Why a spec that is well formed cannot be run here. `pointer` is a JSON pointer into the spec."""

    pointer: str
    code: str
    message: str


def check_spec(
    spec: Spec,
    catalog: Catalog,
    *,
    allow_local_paths: bool,
    allow_hub_datasets: bool = False,
    remote_reward_hosts: Sequence[str] = (),
) -> list[SpecProblem]:
    """What of the spec this server refuses: names it does not know, local paths, a judge that would be trained on,
    rewards on hosts that its operator did not name."""
    found: list[SpecProblem] = []
    for pointer, value in walk(spec):
        for field, kind, name in catalog_names(value):
            check = _check_weights if kind == "rewards" else _check_model
            found += check(f"{pointer}/{field}/name", value, name, catalog)
        match value:
            case RemoteReward() if value.host not in remote_reward_hosts:
                found.append(_host_refused(f"{pointer}/url", value.host, remote_reward_hosts))
            case HubDataset() if not allow_hub_datasets:
                message = "this server downloads no datasets of the Hugging Face Hub; upload it as a dataset instead"
                found.append(SpecProblem(pointer, "hub_dataset_refused", message))
            case (
                LocalSource() | SingleFileSource() | LocalDataset() | LocalLora() | LocalDenoiser() | LocalPrompts()
            ) if not allow_local_paths:
                found.append(_local_refused(f"{pointer}/path", value))
            case (
                LocalSource(path=path)
                | LocalDataset(path=path)
                | LocalLora(path=path)
                | LocalDenoiser(path=path)
                | LocalPrompts(path=path)
            ) if not Path(path).is_absolute():
                found.append(_relative(f"{pointer}/path", path))
            case SingleFileSource(path=path, config=config):
                named = (("path", path), ("config", config or "/"))
                found += [_relative(f"{pointer}/{field}", one) for field, one in named if not Path(one).is_absolute()]
    return found


def stored_datasets(spec: Spec) -> list[tuple[str, str]]:
    """JSON pointer and id of every uploaded dataset that the spec names."""
    return [(f"{pointer}/id", value.id) for pointer, value in walk(spec) if isinstance(value, StoredDataset)]


def stored_weights(spec: Spec) -> list[tuple[str, str]]:
    """JSON pointer and id of the weights that the spec names: LoRAs, and denoisers of contenders."""
    return [
        (f"{pointer}/id", value.id) for pointer, value in walk(spec) if isinstance(value, StoredLora | StoredDenoiser)
    ]


def stored_prompts(spec: Spec) -> list[tuple[str, PromptSetSource]]:
    """JSON pointer and source of every list of prompts that the spec names an uploaded set for."""
    return [(pointer, value) for pointer, value in walk(spec) if isinstance(value, PromptSetSource)]


def checkpoint_sources(spec: Spec) -> list[tuple[str, str]]:
    """JSON pointer and id of every checkpoint that the spec names: of its model, of the LoRA that it starts from."""
    return [(f"{pointer}/id", value.id) for pointer, value in walk(spec) if isinstance(value, CheckpointSource)]


def sources_of(
    spec: Spec,
    catalog: Catalog,
    dataset_paths: Mapping[str, Path],
    dataset_columns: Mapping[str, ColumnMapping | None] | None = None,
    label: RunLabel | None = None,
    dataset_bad_rows: Mapping[str, OnBadRow] | None = None,
) -> Sources:
    """Where this machine has everything that the spec names, what the columns of its datasets are, what the run is called.

    `KeyError` for a name that the catalog lost since the spec was checked, or a dataset that has no path.
    """
    models: dict[Name, HubSource | LocalSource | SingleFileSource] = {}
    rewards: dict[Name, LocalSource] = {}
    for _, value in walk(spec):
        for _, kind, name in catalog_names(value):
            if kind == "rewards":
                rewards[name] = catalog.rewards[name].source
            else:
                models[name] = catalog.models[name].source
    columns, bad_rows = dataset_columns or {}, dataset_bad_rows or {}
    datasets = {
        found: LocalDataset(
            path=str(dataset_paths[found]), columns=columns.get(found), on_bad_row=bad_rows.get(found, "fail")
        )
        for _, found in stored_datasets(spec)
    }
    return Sources(models=models, rewards=rewards, datasets=datasets, label=label or RunLabel())


def _check_model(pointer: str, user: Spec, name: str, catalog: Catalog) -> list[SpecProblem]:
    families: tuple[Family, ...] = served() if isinstance(user, JobSpec | ContenderSpec) else ("clip",)
    model = catalog.models.get(name)
    if model is None:
        known = [known for known, entry in catalog.models.items() if entry.family in families]
        return [_unknown(pointer, "model", name, known)]
    if model.family not in families:
        message = f"model {name!r} is of family {model.family!r}; expected {' or '.join(families)}"
        return [SpecProblem(pointer, "wrong_model_family", message)]
    return []


def _check_weights(pointer: str, user: WeightsReward, name: str, catalog: Catalog) -> list[SpecProblem]:
    reward = catalog.rewards.get(name)
    if reward is None:
        known = [known for known, entry in catalog.rewards.items() if entry.type == user.type]
        return [_unknown(pointer, "reward", name, known)]
    if reward.type != user.type:
        message = f"reward {name!r} holds the weights of the type {reward.type!r}; expected {user.type!r}"
        return [SpecProblem(pointer, "wrong_reward_type", message)]
    if reward.judge_only and pointer.startswith("/method/"):
        message = f"reward {name!r} is a judge: it may be used in the evaluation, and no method may train on it"
        return [SpecProblem(pointer, "judge_only_reward", message)]
    return []


def _unknown(pointer: str, kind: Literal["model", "reward"], name: str, known: list[str]) -> SpecProblem:
    offered = f"it has {', '.join(sorted(known))}" if known else "it has none"
    return SpecProblem(pointer, f"unknown_{kind}", f"the catalog has no {kind} {name!r}; {offered}")


def _host_refused(pointer: str, host: str, hosts: Sequence[str]) -> SpecProblem:
    allowed = f"it allows {', '.join(sorted(hosts))}" if hosts else "it allows none"
    return SpecProblem(pointer, "remote_host_refused", f"this server asks no rewards of {host!r}; {allowed}")


def _relative(pointer: str, path: str) -> SpecProblem:
    return SpecProblem(pointer, "local_path_relative", f"expected an absolute path, not {path!r}")


def _local_refused(
    pointer: str, value: LocalSource | SingleFileSource | LocalDataset | LocalLora | LocalDenoiser | LocalPrompts
) -> SpecProblem:
    match value:
        case LocalDataset():
            instead = "upload it as a dataset"
        case LocalLora() | LocalDenoiser():
            instead = "upload it as weights"
        case LocalPrompts():
            instead = "upload it as a prompt set"
        case LocalSource() | SingleFileSource():
            instead = "use a catalog name or a Hub repository"
        case _:
            assert_never(value)
    return SpecProblem(pointer, "local_path_refused", f"this server reads no local paths; {instead} instead")


def _resolved(catalog: Catalog, folder: Path) -> Catalog:
    def resolve(entry: Any) -> Any:
        paths = {field: getattr(entry, field) for field in ("path", "config") if field in type(entry).model_fields}
        return entry.model_copy(update={field: folder / path for field, path in paths.items() if path is not None})

    return Catalog(
        models={name: resolve(entry) for name, entry in catalog.models.items()},
        rewards={name: resolve(entry) for name, entry in catalog.rewards.items()},
    )
