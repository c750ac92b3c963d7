"""Jobs without a data set: online methods are taken, checked and refused over HTTP as they are in the library."""

from typing import Any

import pytest

from tests.service.api.world import Api, assert_problem

TRAINING = {"steps": 10, "batch_size": 16, "gradient_accumulation_steps": 1}
METHODS: list[dict[str, Any]] = [
    {"type": "tailorpo", "rewards": [{"type": "colorfulness"}]},
    {"type": "tailorpo", "rewards": [{"type": "colorfulness"}], "guidance": {}},
    {"type": "d3po", "rewards": [{"type": "colorfulness"}, {"type": "brightness"}]},
    {"type": "ddpo", "reward": {"type": "colorfulness"}},
    {"type": "dpok", "reward": {"type": "colorfulness"}},
]


def body(method: dict[str, Any]) -> dict[str, Any]:
    method = {"prompts": ["a red circle", "a blue square"], **method}
    return {"spec": {"model": {"type": "catalog", "name": "shapes"}, "method": method, "training": TRAINING}}


@pytest.mark.parametrize("method", METHODS, ids=["tailorpo", "tailorpo_g", "d3po", "ddpo", "dpok"])
def test_a_job_needs_prompts_and_a_reward_and_nothing_uploaded(method: dict[str, Any], api: Api):
    checked = api.client.post("/v1/jobs/validate", json=body(method)).json()
    assert checked["valid"], checked["errors"]
    assert checked["estimate"]["num_training_examples"] is None
    answer = api.client.post("/v1/jobs", json=body(method))
    assert answer.status_code == 201
    assert answer.json()["spec"]["method"]["type"] == method["type"]


def test_a_wrong_setting_is_pointed_at_in_what_was_sent(api: Api):
    answer = api.client.post("/v1/jobs", json=body({**METHODS[0], "eta": 0}))
    problem = assert_problem(answer, 422, "invalid_request")
    assert [error["pointer"] for error in problem["errors"]] == ["/spec/method/eta"]
