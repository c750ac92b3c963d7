"""Names, and where weights and data come from. Pure data; import it from `alignment_core.spec`."""

import difflib
import re
from typing import Annotated, Any, Literal, assert_never, get_args

from pydantic import BeforeValidator, Field, StringConstraints

from alignment_core.spec.base import AtFirstMistake, Spec
from alignment_core.spec.unions import OneOf

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
DATASET_ID = r"^ds_[0-9a-z]{26}$"
WEIGHTS_ID = r"^wts_[0-9a-z]{26}$"
CHECKPOINT_ID = r"^ckpt_[0-9a-z]{26}$"
COMMIT = r"^[0-9a-f]{40}$"
REPO_ID = r"^[A-Za-z0-9][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*/[A-Za-z0-9][A-Za-z0-9_]*(?:[.-][A-Za-z0-9_]+)*$"
WITHOUT_NUL = r"^[^\x00]*$"  # no database keeps one, and nobody means one

# Every text of a spec has bounds, and a pattern, under which pydantic refuses half a surrogate pair too.
Name = Annotated[str, StringConstraints(pattern=NAME)]
DatasetId = Annotated[str, StringConstraints(pattern=DATASET_ID)]
WeightsId = Annotated[str, StringConstraints(pattern=WEIGHTS_ID)]
CheckpointId = Annotated[str, StringConstraints(pattern=CHECKPOINT_ID)]
Prompt = Annotated[str, StringConstraints(max_length=2000, pattern=WITHOUT_NUL)]
Prompts = Annotated[tuple[Prompt, ...], AtFirstMistake()]
LocalPath = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=WITHOUT_NUL)]


class CatalogSource(Spec):
    """Something the server's operator offers by name; see `GET /v1/models` and `GET /v1/rewards`."""

    type: Literal["catalog"] = "catalog"
    name: Name = Field(description="Name of the entry in the server's catalog.", examples=["shapes"])


class HubSource(Spec):
    """A repository of the Hugging Face Hub at a pinned commit; only safetensors weights are read."""

    type: Literal["hub"] = "hub"
    repo_id: str = Field(
        max_length=200,
        pattern=REPO_ID,
        description="`owner/name` of the repository.",
        examples=["stable-diffusion-v1-5/stable-diffusion-v1-5"],
    )
    revision: str = Field(
        pattern=COMMIT,
        description="Full commit hash. A branch or tag is refused, since it may move between two runs.",
        examples=["451f4fe16113bff5a5d2269ed5ad43b0592e9a14"],
    )
    variant: Name | None = Field(default=None, description="Weight variant, such as `fp16`.")


class LocalSource(Spec):
    """A folder on the machine that trains. The HTTP service refuses it unless its operator allows it."""

    type: Literal["local"] = "local"
    path: LocalPath = Field(description="Path of the folder.", examples=["demo/assets/model"])


class SingleFileSource(Spec):
    """A model in one `.safetensors` file under the original names, as A1111 and ComfyUI keep them: SD 1.x or SDXL.

    The HTTP service refuses it unless its operator allows local paths.
    """

    type: Literal["single_file"] = "single_file"
    path: LocalPath = Field(
        description="Path of the file on the machine that trains.", examples=["models/mine.safetensors"]
    )
    config: LocalPath | None = Field(
        default=None,
        description="A diffusers folder with the model's configs, scheduler and tokenizer; those of SD 1.5 or SDXL 1.0 when left "
        "out, with the prediction type that the file says.",
    )


class CheckpointSource(Spec):
    """A checkpoint of an earlier job of the same project."""

    type: Literal["checkpoint"] = "checkpoint"
    id: CheckpointId = Field(description="Id of the checkpoint; see `GET /v1/jobs/{id}/checkpoints`.")


class AliasSource(Spec):
    """The checkpoint that a name of the project points at when the job is created; the job keeps the checkpoint."""

    type: Literal["alias"] = "alias"
    name: Name = Field(
        description="`champion`, `candidate` or another name; see `GET /v1/aliases`.", examples=["champion"]
    )


def alias_named(text: str) -> dict[str, str] | None:
    """`@champion` as the alias of this name."""
    return {"type": "alias", "name": text[1:]} if text[:1] == "@" and re.fullmatch(NAME, text[1:]) else None


def catalog_named(text: str) -> dict[str, str] | None:
    """`sd15` as the catalog's entry of this name."""
    return {"type": "catalog", "name": text} if re.fullmatch(NAME, text) else None


def checkpoint_named(text: str) -> dict[str, str] | None:
    """`ckpt_...` as the checkpoint of this id."""
    return {"type": "checkpoint", "id": text} if re.fullmatch(CHECKPOINT_ID, text) else None


HUB = '{"type": "hub", "repo_id": "OWNER/NAME", "revision": COMMIT}'
ModelSpec = Annotated[
    CatalogSource | HubSource | LocalSource | SingleFileSource | CheckpointSource | AliasSource,
    OneOf(
        lambda text: checkpoint_named(text) or alias_named(text) or catalog_named(text),
        f'write the name of a catalog entry, {HUB}, the id of a checkpoint of a full fine-tune ("ckpt_..."), an alias ("@champion"), '
        '{"type": "local", "path": FOLDER}, or {"type": "single_file", "path": FILE}',
    ),
]

WeightsSpec = Annotated[  # of a reward; what a job of ours left is no judge
    CatalogSource | HubSource | LocalSource,
    OneOf(catalog_named, f'write the name of a catalog entry, {HUB}, or {{"type": "local", "path": FOLDER}}'),
]


class StoredDataset(Spec):
    """A dataset that was uploaded to the service."""

    type: Literal["stored"] = "stored"
    id: DatasetId = Field(description="Id of a dataset whose state is `ready`.")


Role = Literal[
    "prompt",
    "chosen",
    "rejected",
    "image_0",
    "image_1",
    "image",
    "images",
    "label",
    "label_0",
    "label_1",
    "winner",
    "preferred",
    "votes_0",
    "votes_1",
    "rank",
    "rank_0",
    "rank_1",
    "ranks",
    "preferences",
    "score",
    "group_id",
]


def _known_roles(columns: Any) -> Any:
    """Refuse a role that there is none of in words; pydantic would list all of them and not name the one."""
    for role in columns if isinstance(columns, dict) else ():
        if role not in get_args(Role):
            close = difflib.get_close_matches(str(role), get_args(Role), n=1)
            meant = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(get_args(Role))}"
            raise ValueError(f"no role {str(role)[:60]!r}; {meant}")
    return columns


ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=WITHOUT_NUL)]
ColumnMapping = Annotated[
    dict[Role, ColumnName],
    BeforeValidator(_known_roles),
    Field(
        min_length=1,
        description="Which column is what, where its name does not say so: role to column. docs/data.md lists the roles.",
        examples=[{"prompt": "caption", "image_0": "image_a", "image_1": "image_b", "winner": "preferred"}],
    ),
]


OnBadRow = Annotated[
    Literal["fail", "drop"],
    Field(
        description="What a row with an error does, such as an image that cannot be read: it makes the dataset unusable, or is left "
        "out. The report counts and names what is left out; training reads exactly the rest.",
    ),
]


class LocalDataset(Spec):
    """A file or folder on the machine that trains, in any form of docs/data.md."""

    type: Literal["local"] = "local"
    path: LocalPath = Field(examples=["demo/assets/pairs.parquet"])
    columns: ColumnMapping | None = None
    on_bad_row: OnBadRow = "fail"


class HubDataset(Spec):
    """The data files of a dataset of the Hugging Face Hub at a pinned commit; no code of it is ever run.

    The HTTP service refuses it unless its operator allows it.
    """

    type: Literal["hub"] = "hub"
    repo_id: str = Field(
        max_length=200,
        pattern=REPO_ID,
        description="`owner/name` of the dataset.",
        examples=["data-is-better-together/open-image-preferences-v1-binarized"],
    )
    revision: str = Field(
        pattern=COMMIT, description="Full commit hash. A branch or tag is refused, since it may move between two runs."
    )
    columns: ColumnMapping | None = None
    on_bad_row: OnBadRow = "fail"


def _stored(text: str) -> dict[str, str] | None:
    """`ds_...` as the uploaded dataset of this id."""
    return {"type": "stored", "id": text} if re.fullmatch(DATASET_ID, text) else None


DatasetSpec = Annotated[
    StoredDataset | LocalDataset | HubDataset,
    OneOf(_stored, 'write the id of an uploaded dataset ("ds_..."), or {"type": "local", "path": FILE}'),
]


def label_of(
    source: CatalogSource
    | HubSource
    | LocalSource
    | SingleFileSource
    | CheckpointSource
    | AliasSource
    | StoredDataset
    | LocalDataset
    | HubDataset,
) -> str:
    """What people call it: the catalog's name, the repository, the path or the id."""
    match source:
        case CatalogSource(name=name):
            return name
        case HubSource(repo_id=repo_id) | HubDataset(repo_id=repo_id):
            return repo_id
        case LocalSource(path=path) | SingleFileSource(path=path) | LocalDataset(path=path):
            return path
        case StoredDataset(id=found) | CheckpointSource(id=found):
            return found
        case AliasSource(name=name):
            return f"@{name}"
        case _:
            assert_never(source)
