"""Truth values and numbers stand for themselves alone, wherever in a model they are."""

from typing import Any

import pytest
from pydantic import Field, ValidationError

from alignment_core.spec.base import Spec


class Inner(Spec):
    steps: int = 3
    rate: float | None = None
    is_on: bool = False
    seeds: tuple[int, ...] = ()
    weights: dict[str, float] = Field(default_factory=dict)
    batch: int | str = 1


class Outer(Spec):
    inner: Inner = Inner()
    sizes: tuple[int, ...] = ()


@pytest.mark.parametrize(
    ("given", "place", "code"),
    [
        ({"steps": True}, ("inner", "steps"), "int_type"),
        ({"rate": False}, ("inner", "rate"), "float_type"),
        ({"is_on": 1}, ("inner", "is_on"), "bool_type"),
        ({"is_on": "yes"}, ("inner", "is_on"), "bool_type"),
        ({"seeds": [1, True]}, ("inner", "seeds", 1), "int_type"),
        ({"weights": {"a": True}}, ("inner", "weights", "a"), "float_type"),
        ({"batch": True}, ("inner", "batch", "int"), "int_type"),
    ],
)
def test_what_is_of_another_kind_is_refused_where_it_stands(
    given: dict[str, Any], place: tuple[str | int, ...], code: str
) -> None:
    with pytest.raises(ValidationError) as raised:
        Outer.model_validate({"inner": given})
    first = raised.value.errors()[0]
    assert (first["loc"], first["type"]) == (place, code)


def test_a_whole_float_and_a_number_as_yaml_has_it_are_numbers() -> None:
    found = Outer.model_validate({"inner": {"steps": 2.0, "rate": "1e-4", "is_on": True}, "sizes": [1, 2.0]})
    assert found == Outer(inner=Inner(steps=2, rate=1e-4, is_on=True), sizes=(1, 2))
