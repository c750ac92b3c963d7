"""Models that a form offers to draw with: those of the catalog, champions by their names, and what recent jobs made."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from service.web.asking import Api, part

RECENT_JOBS = 30
RESULTS_OF_JOBS = "Results of jobs"


class ModelChoice(NamedTuple):
    """What a form sends, and what people read."""

    value: str
    label: str


class ModelGroup(NamedTuple):
    label: str
    choices: list[ModelChoice]


async def model_groups(api: Api, chosen: Sequence[str] = ()) -> list[ModelGroup]:
    """What may be chosen, by kind; what is chosen already is among it, whatever it is."""
    models = (await api.get("/v1/models"))["data"]
    offered = [one for one in models if one["is_trained"] and one["checkpoint_id"] is None]
    aliases = (await api.get("/v1/aliases"))["data"]
    jobs = (await api.get("/v1/jobs", limit=RECENT_JOBS, status="succeeded"))["data"]
    groups = [
        ModelGroup("Catalog", [ModelChoice(one["id"], one["id"]) for one in offered]),
        ModelGroup("Champions", [ModelChoice(value_of(one["source"]), one["id"]) for one in aliases]),
        ModelGroup(
            RESULTS_OF_JOBS,
            [
                ModelChoice(one["result_checkpoint_id"], f"{one['name'] or one['id']} ({one['method']})")
                for one in jobs
                if one["result_checkpoint_id"]
            ],
        ),
    ]
    known = {choice.value for group in groups for choice in group.choices}
    others = [ModelChoice(one, await _words(api, one)) for one in dict.fromkeys(chosen) if one and one not in known]
    return [group for group in [*groups, ModelGroup("Chosen", others)] if group.choices]


def described(model: Mapping[str, Any]) -> str:
    """A model of the catalog by its name, with what the operator says of it."""
    return ": ".join(filter(None, (model["id"], model["description"])))


def value_of(model: Any) -> str:
    """A model of a spec as the text that a form sends: the short form where there is one."""
    match model:
        case {"type": "catalog", "name": name}:
            return name
        case {"type": "checkpoint", "id": checkpoint_id}:
            return checkpoint_id
    return json.dumps(model)


def model_of(value: str) -> Any:
    """And back, for a spec. What is neither is left to the API to refuse."""
    if not value.startswith("{"):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def slug_of(value: str) -> str:
    """What pictures of this model are kept under."""
    model = model_of(value)
    text = (
        next((str(model[key]) for key in ("repo_id", "name", "id") if key in model), "model")
        if isinstance(model, dict)
        else value
    )
    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-._")[:64] or "model"


def value_of_contender(contender: Mapping[str, Any]) -> str:
    """The model or the checkpoint that a contender of a resolved spec is; empty where it is neither alone."""
    match contender:
        case {"denoiser": None, "lora": None, "model": model}:
            return value_of(model)
        case {"denoiser": None, "lora": {"type": "checkpoint"} as lora, "strength": 1, "alpha": None}:
            return value_of(lora)
    return ""


def label_in(groups: Sequence[ModelGroup], value: str) -> str:
    """What people read of a choice among these."""
    return next((one.label for group in groups for one in group.choices if one.value == value), value)


async def _words(api: Api, value: str) -> str:
    """Of a checkpoint, which job it is from; of what is none, its parts."""
    model = model_of(value)
    if isinstance(model, dict):
        return " ".join(str(one) for name, one in model.items() if name != "type" and one)
    found = await api.get_or_none(f"/v1/checkpoints/{part(value)}") if value.startswith("ckpt_") else None
    if found is None:
        return value
    job = await api.get(f"/v1/jobs/{found['job_id']}")
    return f"{job['name'] or job['id']}, step {found['step']}"
