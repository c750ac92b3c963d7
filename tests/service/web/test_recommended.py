"""What an operator recommends for a model: the form begins with it, says so, and takes it back with the method."""

from typing import Any

import pytest

from service.web.recipes import holds, recipe_of, without
from tests.service.api.world import Api
from tests.service.web.test_pages import client_of, form_of, spec_in

RECOMMENDS = "operator recommends these settings"
RECIPE = {
    "training": {"steps": 120, "learning_rate": 1e-3},
    "adapter": {"type": "lora", "rank": 4},
    "method": {"beta": 7},
}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Api:
    api = Api(client_of(tmp_path_factory.mktemp("recommended")))
    api.ready_dataset()
    return api


def recommended(api: Api, method: str) -> dict[str, Any]:
    (shapes,) = api.client.get("/v1/models").json()["data"]
    return shapes["recipes"][method]


def test_a_form_begins_with_what_is_recommended_and_says_so(api: Api) -> None:
    page = api.client.get("/jobs/new").text
    spec, recipe = spec_in(page), recommended(api, "diffusion_dpo")
    assert spec["training"] == recipe["training"]
    assert spec["method"]["beta"] == recipe["method"]["beta"]
    assert RECOMMENDS in page
    assert 'value="recipe"' in page
    changed = api.client.post("/jobs/new", data={**form_of(page), "f.training.steps": "7"}).text
    assert RECOMMENDS not in changed, "these are no longer the operator's"
    back = api.client.post("/jobs/new", data={**form_of(changed), "preset": "recipe"}).text
    assert spec_in(back) == spec


def test_another_method_brings_its_own_and_keeps_what_was_typed(api: Api) -> None:
    typed = {**form_of(api.client.get("/jobs/new").text), "f.method.type": "tailorpo", "f.training.steps": "33"}
    spec, recipe = spec_in(api.client.post("/jobs/new", data=typed).text), recommended(api, "tailorpo")
    assert spec["training"] == {**recipe["training"], "steps": 33}
    assert spec["adapter"] == recipe["adapter"]
    assert spec["method"]["prompts"] == recipe["method"]["prompts"]


@pytest.mark.parametrize(
    ("spec", "left"),
    [
        (RECIPE, {}),
        ({**RECIPE, "seed": 1}, {"seed": 1}),
        ({"training": {"steps": 7, "learning_rate": 1e-3}}, {"training": {"steps": 7}}),
        ({"adapter": {"type": "lora", "rank": 16}}, {"adapter": {"type": "lora", "rank": 16}}),
        ({"adapter": {"type": "full"}}, {"adapter": {"type": "full"}}),
        ({"training": "typed"}, {"training": "typed"}),
        ({"method": {"type": "mapo", "beta": 7, "loss": "x"}}, {"method": {"type": "mapo", "loss": "x"}}),
    ],
)
def test_what_was_typed_is_told_from_what_was_recommended(spec: dict[str, Any], left: dict[str, Any]) -> None:
    assert without(spec, RECIPE) == left


def test_defaults_that_are_recommended_hold_where_they_are_left_out() -> None:
    assert holds({}, {"training": {"steps": 2000}})
    assert not holds({}, RECIPE)
    assert not holds({"adapter": {"type": "full"}}, RECIPE)


def test_only_the_model_that_is_named_has_recipes() -> None:
    models = [{"id": "shapes", "source": {"type": "catalog", "name": "shapes"}, "recipes": {"mapo": RECIPE}}]
    assert recipe_of(models, {"model": {"type": "catalog", "name": "shapes"}}, "mapo") == RECIPE
    assert recipe_of(models, {"model": "shapes"}, "mapo") == RECIPE
    assert recipe_of(models, {"model": "shapes"}, "ddpo") == {}
    assert recipe_of(models, {"model": {"type": "catalog", "name": "sd15"}}, "mapo") == {}
