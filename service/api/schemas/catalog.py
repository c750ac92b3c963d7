"""What can be asked for: methods, models and rewards, each with the JSON Schema of what a spec says of it."""

from typing import Any, Literal

from pydantic import Field

from alignment_core.spec.families import FamilyName
from service.api.schemas.base import Entry, Resource, with_example

JsonSchema = dict[str, Any]

METHOD_EXAMPLE: dict[str, Any] = {
    "id": "diffusion_dpo",
    "object": "method",
    "description": "Diffusion-DPO (arXiv 2311.12908) on preference pairs, with the loss variants of `docs/methods.md`.",
    "json_schema": {"type": "object", "properties": {"type": {"const": "diffusion_dpo"}}, "required": ["dataset"]},
    "references": [
        {
            "type": "frozen",
            "description": "The reference stays the starting model.",
            "json_schema": {"type": "object", "properties": {"type": {"const": "frozen"}}},
        }
    ],
    "timesteps": [
        {
            "type": "uniform",
            "description": "t uniform on the training timesteps; every timestep counts the same.",
            "json_schema": {"type": "object", "properties": {"type": {"const": "uniform"}}},
        }
    ],
    "example": {
        "model": {"type": "catalog", "name": "shapes"},
        "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": "ds_00000000000000000000000000"}},
        "training": {"batch_size": 16, "gradient_accumulation_steps": 1},
        "evaluation": {"prompts": ["a small red circle"], "rewards": [{"type": "colorfulness"}]},
    },
}


class PlugIn(Resource):
    """A choice that stands beside the method: how the reference moves, or which timesteps count how much."""

    type: str = Field(description="The `type` of `spec.reference` or `spec.timesteps`.")
    description: str
    json_schema: JsonSchema = Field(description="JSON Schema of the choice, defaults and ranges included.")


class Method(Entry):
    """A way to align a model; `id` is the `type` of `spec.method`."""

    model_config = with_example(METHOD_EXAMPLE)

    object: Literal["method"] = "method"
    description: str
    json_schema: JsonSchema = Field(description="JSON Schema of `spec.method`, defaults and ranges included.")
    references: list[PlugIn] = Field(description="What `spec.reference` may be; the first is the default.")
    timesteps: list[PlugIn] = Field(description="What `spec.timesteps` may be; the first is the default.")
    example: dict[str, Any] = Field(
        description="A spec to copy and change. `dataset.id`, where there is one, has to be that of a dataset of yours."
    )


MODEL_EXAMPLE: dict[str, Any] = {
    "id": "shapes",
    "object": "model",
    "description": "The demo model: 32x32 pictures of coloured shapes.",
    "family": "sd",
    "is_trained": True,
    "resolution": 32,
    "pipeline_class": "StableDiffusionPipeline",
    "prediction_type": "epsilon",
    "num_parameters": 1077572,
    "lora_targets": ["to_k", "to_out.0", "to_q", "to_v"],
    "default_lora_targets": ["to_k", "to_q", "to_v", "to_out.0"],
    "problem": None,
    "source": {"type": "catalog", "name": "shapes"},
    "checkpoint_id": None,
    "recipes": {
        "diffusion_dpo": {
            "method": {"beta": 1000},
            "training": {"steps": 120, "batch_size": 16, "learning_rate": 0.001},
        }
    },
}


class CatalogModel(Entry):
    """A model that this server offers by name, or a checkpoint of the project that has one."""

    model_config = with_example(MODEL_EXAMPLE)

    object: Literal["model"] = "model"
    description: str
    family: FamilyName | Literal["clip"] | None = Field(
        description="`clip` scores images; the other families are trained. Null where nobody has read the model yet."
    )
    is_trained: bool = Field(description="Whether this server trains models of this family.")
    resolution: int | None = Field(description="Pixels of the side that the model draws, or reads.")
    pipeline_class: str | None = Field(description="The class that its files name; null until they have been read.")
    prediction_type: str | None = Field(description="What it predicts: `epsilon`, `v_prediction` or `velocity`.")
    num_parameters: int | None = Field(description="Parameters of its denoiser.")
    lora_targets: list[str] | None = Field(description="What `adapter.target_modules` may name.")
    default_lora_targets: list[str] | None = Field(
        description="What a LoRA changes where `adapter.target_modules` is left out: the default of the model's family."
    )
    problem: str | None = Field(description="Why a run would refuse the model, where its files say so.")
    source: dict[str, str] = Field(description="What to write as `spec.model`.")
    checkpoint_id: str | None = Field(description="What an alias points at; null for a model of the catalog.")
    recipes: dict[str, dict[str, Any]] = Field(
        description="By method, parts of a spec that the server's operator recommends for this model, to be laid over one of yours."
    )


MODEL_LIST_EXAMPLE: dict[str, Any] = {
    "object": "list",
    "data": [MODEL_EXAMPLE],
    "has_more": False,
    "first_id": "shapes",
    "last_id": "shapes",
    "sources": ["catalog", "hub", "checkpoint", "alias"],
    "json_schema": {"discriminator": {"propertyName": "type"}, "oneOf": []},
}


class ModelList(Resource):
    """The models offered by name, and the other ways in which `spec.model` may name one."""

    model_config = with_example(MODEL_LIST_EXAMPLE)

    object: Literal["list"] = "list"
    data: list[CatalogModel]
    has_more: Literal[False] = False
    first_id: str | None
    last_id: str | None
    sources: list[str] = Field(description="Values of `spec.model.type` that this server takes.")
    json_schema: JsonSchema = Field(description="JSON Schema of `spec.model`.")


REWARD_EXAMPLE: dict[str, Any] = {
    "id": "colorfulness",
    "object": "reward",
    "description": "Hasler and Suesstrunk (2003) colourfulness of the image in [0, 255], divided by 100.",
    "weights": [],
    "json_schema": {"type": "object", "properties": {"type": {"const": "colorfulness"}}},
}


class CatalogEntry(Resource):
    """Weights that this server offers by name."""

    name: str
    description: str
    judge_only: bool = Field(description="Whether it may only score evaluations, and no method may train on it.")


class Reward(Entry):
    """A score of images; `id` is the `type` of a reward in the spec."""

    model_config = with_example(REWARD_EXAMPLE)

    object: Literal["reward"] = "reward"
    description: str
    weights: list[CatalogEntry] = Field(description="What this server's catalog offers as the reward's `weights`.")
    json_schema: JsonSchema = Field(description="JSON Schema of the reward in a spec.")
