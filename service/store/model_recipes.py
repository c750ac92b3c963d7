"""What an operator recommends for a model of the catalog: parts of a spec, by method, that a form begins with."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from alignment_core.spec import JobSpec

Recipe = Mapping[str, Any]
"""Parts of a spec; `method` without its `type`, and never the model."""

OF_THE_JOB = ("model", "start")


def check_recipe(method: str, recipe: Recipe) -> None:
    """Raises ValueError, naming the field, for what no spec of the method could hold. What a job itself brings may be missing."""
    for name in OF_THE_JOB:
        if name in recipe:
            raise ValueError(f"{method}.{name}: a recipe is for one model, and says how to train it, not which")
    of_method = recipe.get("method", {})
    if not isinstance(of_method, Mapping) or "type" in of_method:
        raise ValueError(f"{method}.method: expected fields of the method, without its type")
    try:
        JobSpec.model_validate(
            {**recipe, "model": {"type": "catalog", "name": "any"}, "method": {**of_method, "type": method}}
        )
    except ValidationError as error:
        wrong = [one for one in error.errors(include_url=False) if not _is_of_the_job(one["type"], one["loc"])]
        if wrong:
            field = ".".join(str(part) for part in wrong[0]["loc"])
            raise ValueError(f"{method}.{field}: {wrong[0]['msg']}") from None


def _is_of_the_job(kind: str, place: tuple[int | str, ...]) -> bool:
    """Data and rewards come with the job: `method`, its type, and a field."""
    return kind == "missing" and place[0] == "method" and len(place) == 3
