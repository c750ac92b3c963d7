"""What the operator recommends for a model and a method, as the form begins with it and takes it back."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.web.presets import laid_over
from service.web.spec_schema import filled, spec_schema

Recipe = Mapping[str, Any]


def recipe_of(models: Sequence[Mapping[str, Any]], spec: Mapping[str, Any], method: str) -> Recipe:
    """Parts of a spec for the model that `spec` names, of what `GET /v1/models` answers; empty where nobody recommends any."""
    named = next((one for one in models if is_named(one, spec)), None)
    return {} if named is None else named["recipes"].get(method, {})


def is_named(model: Mapping[str, Any], spec: Mapping[str, Any]) -> bool:
    return spec.get("model") in (model["source"], model["id"])


def holds(spec: Mapping[str, Any], recipe: Recipe) -> bool:
    """Whether everything that is recommended is in the spec."""
    schema = spec_schema()
    return filled(schema, laid_over(spec, recipe)) == filled(schema, spec)


def without(spec: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """The spec without what it has from the recipe: what was typed since is left, each choice with its `type`."""
    left: dict[str, Any] = {}
    for name, value in spec.items():
        if name not in recipe:
            left[name] = value
        elif value != recipe[name]:
            left[name] = _without(value, recipe[name])
    return left


def _without(value: Any, recipe: Any) -> Any:
    if not (isinstance(value, Mapping) and isinstance(recipe, Mapping)):
        return value
    if recipe.get("type", value.get("type")) != value.get("type"):
        return value
    kind = {"type": value["type"]} if "type" in value else {}
    return {**without(value, recipe), **kind}
