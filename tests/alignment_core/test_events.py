"""Events of before are read under the names that they were stored with."""

import json

import pytest

from alignment_core.events import RunStarted, event_from_json, event_to_json

STORED = {
    "type": "run_started",
    "spec_sha256": "a" * 64,
    "learning_rate": 1e-5,
    "total_steps": 10,
    "device": "cpu",
    "precision": "fp32",
    "versions": {},
}


@pytest.mark.parametrize("name", ["examples_per_step", "pairs_per_step"])
def test_the_effective_batch_is_read_under_either_name_and_written_under_the_new_one(name: str) -> None:
    event = event_from_json(json.dumps({**STORED, name: 64}))
    assert isinstance(event, RunStarted)
    assert event.examples_per_step == 64
    written = json.loads(event_to_json(event))
    assert written["examples_per_step"] == 64
    assert "pairs_per_step" not in written
    assert event_from_json(event_to_json(event)) == event


def test_the_schema_knows_the_new_name_alone() -> None:
    for mode in ("validation", "serialization"):
        properties = RunStarted.model_json_schema(mode=mode)["properties"]
        assert "examples_per_step" in properties
        assert "pairs_per_step" not in properties
