"""What is not a job is refused in an answer of bounded size, by work that grows with the body and no faster."""

import difflib
import json
from typing import Any

import pytest

from alignment_core.spec.mistakes import MOST
from service.api.schemas.jobs import MOST_FIELDS
from tests.service.api.world import Api, assert_problem, spec_for

BASE = spec_for("ds_" + "0" * 26)
ONLINE = {"type": "ddpo", "reward": {"type": "brightness"}}
LARGEST_ANSWER = 64_000
PART = {"weight": 1, "reward": {"type": "brightness"}}

BODIES = {
    "wrong evaluation prompts": {"spec": {**BASE, "evaluation": {"prompts": [7] * 200_000}}},
    "wrong training prompts": {"spec": {**BASE, "method": {**ONLINE, "prompts": [None] * 100_000}}},
    "unknown fields": {"spec": {**BASE, **{f"f{number:05}": 1 for number in range(60_000)}}},
    "unknown fields that are just few enough": {"spec": {**BASE, **{f"stepz{n}": 1 for n in range(MOST_FIELDS - 50)}}},
    "unknown fields beside the spec": {"spec": BASE, **{f"f{number:05}": 1 for number in range(9_000)}},
    "a field with an endless name": {"spec": {**BASE, "x" * 500_000: 1}},
    "a type with an endless name": {"spec": {**BASE, "model": {"type": "y" * 500_000}}},
    "many wrong rewards": {"spec": {**BASE, "evaluation": {"rewards": [{"type": "weighted_sum", "parts": [{**PART, "a": 1, "b": 2}] * 16}] * 2000}}},
    "wrong tables": {"spec": {**BASE, "timesteps": {"type": "timestep_aware", "sampler": {"type": "table", "probabilities": ["x"] * 100_000}}}},
    "wrong metadata": {"spec": BASE, "metadata": {f"{number} {number}": 7 for number in range(9_000)}},
    "deep nesting": {"spec": {**BASE, "model": json.loads('{"a":' * 400 + "1" + "}" * 400)}},
    "half a surrogate pair in a name": {"spec": {**BASE, "\ud800": 1}, "metadata": {"\udfff": "x"}},
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/validate"])
def test_answer_has_at_most_a_hundred_errors_and_few_bytes(api: Api, path: str, name: str) -> None:
    content = json.dumps(BODIES[name]).encode()
    answer = api.client.post(path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == (200 if path.endswith("validate") else 422)
    assert len(answer.content) < LARGEST_ANSWER
    assert 1 <= len(answer.json()["errors"]) <= MOST


def test_guesses_are_made_for_the_errors_that_are_told_and_no_others(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    guesses = []

    def counted(word: str, *rest: Any, **settings: Any) -> list[str]:
        guesses.append(word)
        return close(word, *rest, **settings)

    close = difflib.get_close_matches
    monkeypatch.setattr(difflib, "get_close_matches", counted)
    for name, body in BODIES.items():
        guesses.clear()
        api.client.post("/v1/jobs", content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
        assert len(guesses) <= MOST, name
        assert all(len(word) < 100 for word in guesses), name


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": ' + b"9" * 5000 + b"}", "too many digits"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a": "\xff"}', "not UTF-8"),
    ],
)
def test_json_that_cannot_be_read_is_told_why(api: Api, content: bytes, message: str) -> None:
    answer = api.client.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert message in answer.json()["detail"]


def test_unknown_parameters_are_told_up_to_a_hundred(api: Api) -> None:
    answer = api.client.get("/v1/jobs?" + "&".join(f"p{number}=1" for number in range(3000)))
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == MOST


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("limit=1&limit=2", "limit"),
        ("status=queued&after=a&after=b&status=paused", "after"),
        ("metadata[team]=a&metadata[team]=b", "metadata[team]"),
    ],
)
def test_a_parameter_of_one_value_is_not_given_two(api: Api, query: str, name: str) -> None:
    """Else the last would count, and the list look like one that both had chosen."""
    answer = api.client.get(f"/v1/jobs?{query}")
    (error,) = assert_problem(answer, 422, "invalid_request")["errors"]
    assert (error["pointer"], error["code"]) == (f"query:{name}", "repeated")
