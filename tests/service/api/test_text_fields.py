"""Every text that a client may send has bounds: nothing that JSON can spell and a database cannot keep is taken."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import TypeAdapter
from pydantic_core import SchemaValidator, ValidationError

from service.api.schemas.jobs import JobRequest
from service.api.schemas.texts import Text
from tests.service.api.world import Api, assert_problem, spec_for


def _texts(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every place in pydantic's own schema of a model where any text at all may stand, with the field it belongs to."""
    if isinstance(schema, dict):
        if schema.get("type") == "str":
            yield path, schema
        for key, inner in schema.items():
            name = f"{path}.{key}" if key not in STRUCTURE else path
            yield from _texts(inner, name)
    elif isinstance(schema, list):
        for inner in schema:
            yield from _texts(inner, path)


STRUCTURE = ("schema", "fields", "type", "choices", "items_schema", "definitions", "keys_schema", "values_schema", "metadata")  # fmt: skip
FOUND = [
    *_texts(JobRequest.__pydantic_core_schema__),
    *_texts(TypeAdapter(Text).core_schema, "a data set's name"),
]


def test_the_walk_finds_the_texts_of_a_job() -> None:
    assert len(FOUND) > 30
    assert any("target_modules" in path for path, _ in FOUND)


@pytest.mark.parametrize(
    "text", ["\ud800", "a\udfff", "a\0b", "x" * 100_000], ids=["half", "other half", "NUL", "long"]
)
def test_no_text_takes_what_is_no_unicode_or_has_no_end(text: str) -> None:
    for path, schema in FOUND:
        with pytest.raises(ValidationError):
            pytest.fail(f"{path} takes {SchemaValidator(schema).validate_python(text)!r:.40}")


def test_prompts_are_any_real_text() -> None:
    for prompt in ("two\nlines\tand a tab", "日本 \U0001f600", "line\u2028separator", "e\u0301", ""):
        spec = {**spec_for("ds_" + "0" * 26), "evaluation": {"prompts": [prompt]}}
        assert JobRequest.model_validate({"spec": spec}).spec.evaluation.prompts == (prompt,)


@pytest.mark.parametrize("modules", [["\ud800"], ["a\0"], [""], ["x" * 100_000], ["to_q"] * 1000, ["to q"], [".to_q"]])
def test_target_modules_that_are_no_names_are_refused(api: Api, modules: list[str]) -> None:
    spec = {**spec_for("ds_" + "0" * 26), "adapter": {"type": "lora", "target_modules": modules}}
    content = json.dumps({"spec": spec}).encode()
    answer = api.client.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    found = assert_problem(answer, 422, "invalid_request")["errors"]
    assert found[0]["pointer"].startswith("/spec/adapter/target_modules")
