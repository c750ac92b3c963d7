"""What may stand in the fields of a spec and no schema knows: names of this server's catalog, and what the project has uploaded."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.web.asking import Api
from service.web.contender_choices import described
from service.web.first_spec import OFFERED, ready_datasets
from service.web.spec_form import LOCAL_PATHS, Offers

IN_PLACE_OF_LINES = ("/method/prompts", "/evaluation/prompts")
Listed = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Known:
    """As the API lists them."""

    datasets: Listed = ()
    models: Listed = ()
    sources: Sequence[str] = ()
    rewards: Listed = ()
    prompt_sets: Listed = ()


async def known_to(api: Api) -> Known:
    """What there is for whoever asks."""
    models = await api.get("/v1/models")
    return Known(
        datasets=await ready_datasets(api),
        models=models["data"],
        sources=models["sources"],
        rewards=(await api.get("/v1/rewards"))["data"],
        prompt_sets=(await api.get("/v1/prompt_sets", limit=OFFERED))["data"],
    )


def offers_of(spec: Mapping[str, Any], known: Known) -> Offers:
    """By the pointers of this spec."""
    sets = [(one["id"], f"{one['name'] or one['filename']} ({one['num_prompts']:,})") for one in known.prompt_sets]
    return {
        "/model/name": _named(known.models, spec.get("model")),
        "/method/dataset/id": [
            (one["id"], f"{one['name'] or one['filename']} ({one['id'][-6:]})") for one in known.datasets
        ],
        **dict(_of_rewards(spec, "", known)),
        **({pointer: [("", "the lines below"), *sets] for pointer in IN_PLACE_OF_LINES} if sets else {}),
        LOCAL_PATHS: [("local", "local")] if "local" in known.sources else [],
    }


def _named(models: Listed, model: Any) -> list[tuple[str, str]]:
    """What is trained of the kind that is chosen: of the catalog, or champions."""
    kind = model.get("type") if isinstance(model, Mapping) else None
    return [
        (one["source"]["name"], described(one)) for one in models if one["is_trained"] and one["source"]["type"] == kind
    ]


def _of_rewards(value: Any, pointer: str, known: Known) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Weights by name for each reward in the spec that has some, and the models that score."""
    weights = {one["id"]: [entry["name"] for entry in one["weights"]] for one in known.rewards}
    scoring = [one["id"] for one in known.models if one["family"] == "clip"]
    if isinstance(value, Mapping):
        if (kind := value.get("type")) in weights and isinstance(kind, str):
            yield f"{pointer}/weights/name", [(name, name) for name in weights[kind]]
            yield from (
                (f"{pointer}/{field}/name", [(name, name) for name in scoring]) for field in ("model", "processor")
            )
        for name, inner in value.items():
            yield from _of_rewards(inner, f"{pointer}/{name}", known)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _of_rewards(inner, f"{pointer}/{place}", known)
