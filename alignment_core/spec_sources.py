"""Names, and where weights and data come from. Pure data; import it from `alignment_core.spec`."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from alignment_core.spec_base import Spec

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
DatasetId = Annotated[str, StringConstraints(pattern=r"^ds_[0-9a-z]{26}$")]
Prompt = Annotated[str, StringConstraints(max_length=2000)]
LocalPath = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00]+$")]


class CatalogSource(Spec):
    """Something the server's operator offers by name; see `GET /v1/models` and `GET /v1/rewards`."""

    type: Literal["catalog"] = "catalog"
    name: Name = Field(description="Name of the entry in the server's catalog.", examples=["shapes"])


class HubSource(Spec):
    """A repository of the Hugging Face Hub at a pinned commit; only safetensors weights are read."""

    type: Literal["hub"] = "hub"
    repo_id: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*/[A-Za-z0-9][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*$",
        description="`owner/name` of the repository.",
        examples=["stable-diffusion-v1-5/stable-diffusion-v1-5"],
    )
    revision: str = Field(
        pattern=r"^[0-9a-f]{40}$",
        description="Full commit hash. A branch or tag is refused, since it may move between two runs.",
        examples=["451f4fe16113bff5a5d2269ed5ad43b0592e9a14"],
    )
    variant: Name | None = Field(default=None, description="Weight variant, such as `fp16`.")


class LocalSource(Spec):
    """A folder on the machine that trains. The HTTP service refuses it unless its operator allows it."""

    type: Literal["local"] = "local"
    path: LocalPath = Field(description="Path of the folder.", examples=["demo/assets/model"])


ModelSpec = Annotated[CatalogSource | HubSource | LocalSource, Field(discriminator="type")]


class StoredDataset(Spec):
    """A dataset that was uploaded to the service."""

    type: Literal["stored"] = "stored"
    id: DatasetId = Field(description="Id of a dataset whose state is `ready`.")


class LocalDataset(Spec):
    """A file or folder on the machine that trains: canonical parquet, jsonl (folder or zip), or Pick-a-Pic parquet."""

    type: Literal["local"] = "local"
    path: LocalPath = Field(examples=["demo/assets/pairs.parquet"])


DatasetSpec = Annotated[StoredDataset | LocalDataset, Field(discriminator="type")]
