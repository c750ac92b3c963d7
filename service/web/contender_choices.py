"""Models that a form offers to draw with: those of the catalog, champions by their names, and what recent jobs made."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from service.web.asking import Api

RECENT_JOBS = 30


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
    aliases = (await api.get("/v1/aliases"))["data"]
    jobs = (await api.get("/v1/jobs", limit=RECENT_JOBS, status="succeeded"))["data"]
    groups = [
        ModelGroup("Catalog", [ModelChoice(one["id"], one["id"]) for one in models]),
        ModelGroup("Champions", [ModelChoice(value_of(one["source"]), one["id"]) for one in aliases]),
        ModelGroup(
            "Results of jobs",
            [
                ModelChoice(one["result_checkpoint_id"], f"{one['name'] or one['id']} ({one['method']})")
                for one in jobs
                if one["result_checkpoint_id"]
            ],
        ),
    ]
    known = {choice.value for group in groups for choice in group.choices}
    others = [ModelChoice(one, _words(one)) for one in dict.fromkeys(chosen) if one and one not in known]
    return [group for group in [*groups, ModelGroup("Chosen", others)] if group.choices]


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


def _words(value: str) -> str:
    model = model_of(value)
    if isinstance(model, dict):
        return " ".join(str(part) for name, part in model.items() if name != "type" and part)
    return value
