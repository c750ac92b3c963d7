"""The plug-ins over HTTP: what is offered, how presets are written out, and what is refused."""

from typing import Any

import jsonschema_rs
import pytest

from alignment_core.spec.reference import REFERENCE_PRESETS, resolve_reference
from alignment_core.spec.timesteps import TIMESTEP_PRESETS
from tests.service.api.world import Api, assert_problem, spec_for


def method_of(api: Api) -> dict[str, Any]:
    (method,) = [entry for entry in api.client.get("/v1/methods").json()["data"] if entry["id"] == "diffusion_dpo"]
    return method


def test_a_method_lists_what_may_stand_beside_it(api: Api):
    method = method_of(api)
    assert [choice["type"] for choice in method["references"]] == [
        "frozen",
        "hard_copy",
        "ema",
        "drift_controlled",
        "preset",
    ]
    assert [choice["type"] for choice in method["timesteps"]] == ["uniform", "timestep_aware", "preset"]
    assert all(choice["description"] for choice in [*method["references"], *method["timesteps"]])


def test_a_method_without_a_reference_lists_none_that_moves(api: Api):
    methods = {entry["id"]: entry for entry in api.client.get("/v1/methods").json()["data"]}
    listed = {name: [choice["type"] for choice in entry["references"]] for name, entry in methods.items()}
    assert listed["ddpo"] == listed["mapo"] == ["frozen"]
    assert all("hard_copy" in listed[name] for name in listed if name not in ("ddpo", "mapo"))


def test_every_method_is_listed_with_its_paper(api: Api):
    methods = api.client.get("/v1/methods").json()["data"]
    offline, online = ["diffusion_dpo", "mapo", "diffusion_kto"], ["tailorpo", "d3po", "ddpo", "dpok"]
    assert [entry["id"] for entry in methods] == offline + online
    assert all("arXiv" in entry["description"] for entry in methods)
    assert all(entry["json_schema"]["properties"]["type"]["const"] == entry["id"] for entry in methods)


def test_the_listed_schemas_take_what_the_service_takes(api: Api):
    method = method_of(api)
    for kind, presets in (("references", REFERENCE_PRESETS), ("timesteps", TIMESTEP_PRESETS)):
        schemas = {choice["type"]: choice["json_schema"] for choice in method[kind]}
        for preset in presets.values():
            jsonschema_rs.validate(schemas[preset.type], preset.model_dump(mode="json"))


@pytest.mark.parametrize("name", ["paper", "seed", "adaptive"])
def test_a_job_shows_what_its_presets_stand_for(name: str, api: Api):
    preset = {"type": "preset", "name": name}
    spec = spec_for(api.ready_dataset()) | {"reference": preset, "timesteps": preset}
    answer = api.client.post("/v1/jobs", json={"spec": spec})
    assert answer.status_code == 201
    shown = answer.json()["spec"]
    expected = resolve_reference(REFERENCE_PRESETS[name], is_lora=True, is_online=False)
    assert shown["reference"] == expected.model_dump(mode="json")
    assert shown["timesteps"]["type"] == "timestep_aware"


def test_a_wrong_setting_of_a_plug_in_is_pointed_at(api: Api):
    reference = {"type": "hard_copy", "guard": {"delta": -1}}
    spec = spec_for(api.ready_dataset()) | {"reference": reference}
    problem = assert_problem(api.client.post("/v1/jobs", json={"spec": spec}), 422, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == ["/spec/reference/guard/delta"]


def test_every_methods_example_is_a_spec_that_the_server_takes(api: Api):
    dataset = api.ready_dataset()
    for method in api.client.get("/v1/methods").json()["data"]:
        spec = method["example"]
        if "dataset" in spec["method"]:
            spec["method"]["dataset"]["id"] = dataset
        answer = api.client.post("/v1/jobs/validate", json={"spec": spec}).json()
        assert answer["valid"], (method["id"], answer)
