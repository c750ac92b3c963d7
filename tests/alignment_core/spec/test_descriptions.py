"""What a field is, is said at it: the form for a new job and the reference of the API show no other help."""

from typing import Any

import pytest
from pydantic import BaseModel

from alignment_core.spec import JobSpec
from alignment_core.spec.proof import ProofSpec


def kinds_of(field: dict[str, Any]) -> set[str]:
    """The JSON types that it may have."""
    choices = [choice for word in ("anyOf", "oneOf", "allOf") for choice in field.get(word, [])]
    return {field.get("type", "")}.union(*map(kinds_of, choices))


@pytest.mark.parametrize("spec", [JobSpec, ProofSpec])
def test_every_number_says_what_it_is(spec: type[BaseModel]) -> None:
    schema = spec.model_json_schema()
    models = {spec.__name__: schema, **schema["$defs"]}
    numbers = {
        f"{name}.{key}": field
        for name, model in models.items()
        for key, field in model.get("properties", {}).items()
        if kinds_of(field) & {"integer", "number"}
    }
    assert len(numbers) > 10
    assert [name for name, field in numbers.items() if not field.get("description")] == []
