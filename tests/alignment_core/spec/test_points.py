"""The points of a sweep: what a grid, a list and draws give, and where a value goes."""

import pytest
from pydantic import ValidationError

from alignment_core.spec.points import Grid, Listed, RandomPoints, points_of, with_point


def test_a_grid_has_every_combination() -> None:
    grid = Grid(axes={"training.steps": [1, 2], "seed": [3, 4]})
    expected = [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert points_of(grid) == [{"training.steps": steps, "seed": seed} for steps, seed in expected]


def test_a_list_is_taken_as_it_is() -> None:
    assert points_of(Listed(points=[{"seed": 1}, {"training.steps": 2}])) == [{"seed": 1}, {"training.steps": 2}]


def test_the_same_seed_draws_the_same_and_more_draws_begin_alike() -> None:
    axes = {"training.learning_rate": {"low": 1e-5, "high": 1e-2, "log": True}, "method.beta": [1, 2, 3]}
    few, many = (points_of(RandomPoints.model_validate({"axes": axes, "num": num, "seed": 5})) for num in (4, 32))
    assert many[:4] == few
    rates = [point["training.learning_rate"] for point in many]
    assert all(isinstance(rate, float) and 1e-5 <= rate <= 1e-2 for rate in rates)
    assert 8 < sum(isinstance(rate, float) and rate < 3.2e-4 for rate in rates) < 24, (
        "half of them below the middle of the logarithm"
    )
    assert {point["method.beta"] for point in many} == {1, 2, 3}
    assert points_of(RandomPoints.model_validate({"axes": axes, "num": 4, "seed": 6})) != few


def test_more_than_are_compared_are_refused() -> None:
    with pytest.raises(ValidationError, match="1 to 64 combinations"):
        Grid(axes={"seed": list(range(9)), "training.steps": list(range(8))})


def test_a_value_goes_to_its_place_and_to_no_new_one() -> None:
    spec = {"training": {"steps": 1}, "evaluation": {"rewards": [{"type": "colorfulness"}]}}
    assert with_point(spec, {"training.steps": 2})["training"] == {"steps": 2}
    assert spec["training"] == {"steps": 1}
    assert (
        with_point(spec, {"evaluation.rewards.0.type": "brightness"})["evaluation"]["rewards"][0]["type"]
        == "brightness"
    )
    of_lists = ("evaluation.rewards.1.type", "evaluation.rewards.first.type", "evaluation.rewards._.type")
    for path in ("training.stepz", "nothing.at.all", "training.steps.more", *of_lists):
        with pytest.raises(KeyError, match=path):
            with_point(spec, {path: 1})


def test_nothing_is_drawn_from_no_values() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        RandomPoints.model_validate({"axes": {"seed": []}, "num": 1})


@pytest.mark.parametrize("value", ["\ud800", "a\0b", {"\0": 1}, [[{"a": "\udfff"}]]])
def test_no_text_is_kept_that_no_database_keeps_or_no_answer_holds(value: object) -> None:
    for search in ({"axes": {"seed": [1, value]}, "num": 1}, {"type": "random", "axes": {"seed": [value]}, "num": 1}):
        with pytest.raises(ValidationError, match="half a surrogate pair"):
            RandomPoints.model_validate(search)
    with pytest.raises(ValidationError, match="half a surrogate pair"):
        Listed.model_validate({"points": [{"seed": value}]})
    with pytest.raises(ValidationError, match="half a surrogate pair"):
        Grid.model_validate({"axes": {"seed": [value]}})
