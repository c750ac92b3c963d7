"""The OpenAPI document is complete: every answer has a schema, and an example that the schema accepts."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema_rs
import pytest
from pydantic import TypeAdapter

from service.main import create_app
from service.settings import Settings
from service.store.webhook_events import EVENT_TYPES, PING, WebhookPayload

Accepts = Callable[[dict[str, Any], Any], None]
JSON_TYPES = ("application/json", "application/problem+json")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data"))).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            yield f"{verb.upper()} {path}", operation


def contents(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            for media_type, content in response.get("content", {}).items():
                yield f"{name} {status} {media_type}", media_type, content


@pytest.fixture(scope="module")
def accepts(document: dict[str, Any]) -> Accepts:
    """Raises unless the schema, with the document's components, accepts the value."""
    validators: dict[
        str, jsonschema_rs.Validator
    ] = {}  # most answers are the same problem, and each takes 20 ms to make

    def accept(schema: dict[str, Any], value: Any) -> None:
        told = json.dumps(schema, sort_keys=True)
        if told not in validators:
            validators[told] = jsonschema_rs.validator_for({**schema, "components": document["components"]})
        validators[told].validate(value)

    return accept


def test_document_has_every_endpoint_of_the_contract(document: dict[str, Any]):
    found = {name for name, _ in operations(document)}
    job, checkpoint, dataset = "/v1/jobs/{job_id}", "/v1/checkpoints/{checkpoint_id}", "/v1/datasets/{dataset_id}"
    weights, prompt_set = "/v1/weights/{weights_id}", "/v1/prompt_sets/{prompt_set_id}"
    evaluation = "/v1/evaluations/{evaluation_id}"
    candidates = "/v1/candidates/{candidates_id}"
    results = ("events", "metrics", "checkpoints", "samples", "report", "manifest", "logs")
    assert found == {
        *("POST /v1/jobs", "POST /v1/jobs/validate", "GET /v1/jobs", f"GET {job}"),
        *(f"POST {job}/{verb}" for verb in ("cancel", "pause", "resume")),
        *(f"GET {job}/{name}" for name in results),
        f"GET {job}/samples/{{sample_id}}.png",
        *("POST /v1/candidates", "POST /v1/candidates/validate", "GET /v1/candidates"),
        *("GET /v1/playground", "POST /v1/playground"),
        *(f"{verb} {candidates}" for verb in ("GET", "DELETE")),
        *(
            "POST /v1/labelings",
            "GET /v1/labelings",
            "GET /v1/labelings/{labeling_id}",
            "DELETE /v1/labelings/{labeling_id}",
        ),
        *(f"GET /v1/labelings/{{labeling_id}}/{name}" for name in ("next", "results")),
        *(f"{verb} /v1/labelings/{{labeling_id}}/votes/{{question}}" for verb in ("PUT", "DELETE")),
        "POST /v1/labelings/{labeling_id}/dataset",
        *(f"POST {candidates}/{verb}" for verb in ("cancel", "pause", "resume")),
        *(f"GET {candidates}/{name}" for name in ("events", "logs", "images", "images/{image_id}.png")),
        *(f"GET {job}/{name}" for name in ("report.html", "tensorboard")),
        *(f"GET {checkpoint}{path}" for path in ("", "/files", "/files/{path}", "/download")),
        *(f"GET {checkpoint}/exports{path}" for path in ("", "/{format}", "/{format}/files/{path}")),
        f"POST {checkpoint}/exports",
        *(
            f"{verb} {checkpoint}/pushes{path}"
            for verb, path in (("POST", ""), ("GET", ""), ("GET", "/{push_id}"), ("DELETE", "/{push_id}"))
        ),
        f"POST {checkpoint}/fork",
        f"GET {job}/ancestry",
        *(f"{verb} {job}/actions" for verb in ("POST", "GET")),
        "POST /v1/evaluations/validate",
        *("POST /v1/evaluations", "GET /v1/evaluations", f"GET {evaluation}", f"DELETE {evaluation}"),
        *(f"POST {evaluation}/{verb}" for verb in ("cancel", "pause", "resume", "verify")),
        *(f"GET {evaluation}/{name}" for name in ("events", "logs", "report", "report.html", "pictures")),
        *(f"GET {evaluation}/{name}" for name in ("pictures/{picture_id}.png", "scores.parquet")),
        *("POST /v1/datasets", "GET /v1/datasets", f"GET {dataset}", f"GET {dataset}/report"),
        *(f"GET {dataset}/{name}" for name in ("pairs", "pairs/{row}/{side}.jpg")),
        *("POST /v1/prompt_sets", "GET /v1/prompt_sets"),
        *("POST /v1/uploads", "GET /v1/uploads", "POST /v1/uploads/{upload_id}/finish"),
        *(f"{verb} /v1/uploads/{{upload_id}}" for verb in ("GET", "PATCH", "DELETE")),
        *(f"GET {prompt_set}{path}" for path in ("", "/prompts", "/file")),
        *("POST /v1/promotions", "GET /v1/promotions", "GET /v1/promotions/{promotion_id}"),
        *(f"{verb} /v1/aliases{path}" for verb, path in (("GET", ""), ("GET", "/{alias}"), ("DELETE", "/{alias}"))),
        *("POST /v1/weights", "GET /v1/weights", f"GET {weights}"),
        *(f"DELETE {path}" for path in (job, checkpoint, dataset, weights, prompt_set)),
        *(f"{verb} /v1/webhooks" for verb in ("POST", "GET")),
        *(f"{verb} /v1/webhooks/{{webhook_id}}" for verb in ("GET", "PUT", "DELETE")),
        *(f"POST /v1/webhooks/{{webhook_id}}/{verb}" for verb in ("rotate", "test")),
        *(f"GET /v1/webhooks/{{webhook_id}}/deliveries{path}" for path in ("", "/{delivery_id}")),
        "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver",
        *("GET /v1/audit", "GET /v1/quotas", "GET /v1/usage"),
        *("GET /v1/retention", "PUT /v1/retention", *(f"{verb} {job}/retention" for verb in ("GET", "PUT", "DELETE"))),
        *(f"POST {checkpoint}/{verb}" for verb in ("pin", "unpin")),
        *(
            f"DELETE {path}"
            for path in (f"{checkpoint}/exports/{{format}}", f"{job}/samples/{{sample_id}}", f"{job}/report")
        ),
        *("POST /v1/keys", "GET /v1/keys", "GET /v1/keys/{key_id}"),
        *(f"POST /v1/keys/{{key_id}}/{verb}" for verb in ("rotate", "revoke")),
        *("POST /v1/sessions", "GET /v1/sessions", "GET /v1/sessions/current", "POST /v1/links"),
        *("DELETE /v1/sessions/current", "DELETE /v1/sessions/{session_id}"),
        *("POST /v1/sweeps", "GET /v1/sweeps", "GET /v1/sweeps/{sweep_id}", "POST /v1/sweeps/{sweep_id}/cancel"),
        "DELETE /v1/sweeps/{sweep_id}",
        *("GET /v1/methods", "GET /v1/models", "GET /v1/rewards"),
        *("GET /healthz", "GET /readyz", "GET /metrics"),
    }


def test_every_answer_has_a_schema_and_an_example(document: dict[str, Any]):
    incomplete = [
        name for name, _, content in contents(document) if not content.get("schema") or "example" not in content
    ]
    assert incomplete == []


def test_every_answer_but_redirects_204_and_304_has_a_body(document: dict[str, Any]):
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            assert response["description"], (name, status)
            assert status in ("204", "304", "307") or response.get("content"), (name, status)


def test_every_json_example_is_accepted_by_its_schema(document: dict[str, Any], accepts: Accepts):
    for name, media_type, content in contents(document):
        if media_type in JSON_TYPES:
            try:
                accepts(content["schema"], content["example"])
            except jsonschema_rs.ValidationError as error:
                pytest.fail(f"{name}: {error}")


def test_every_operation_says_which_errors_it_has(document: dict[str, Any]):
    for name, operation in operations(document):
        assert "500" in operation["responses"], name
        if operation["tags"] != ["health"]:
            assert {"401", "422", "503"} <= set(operation["responses"]), name
        if "{" in name:
            assert "404" in operation["responses"], name
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"], (name, status)
                assert response["content"]["application/problem+json"]["example"]["status"] == int(status)


def test_every_operation_and_parameter_is_described(document: dict[str, Any]):
    tags = {tag["name"] for tag in document["tags"]}
    ids = [operation["operationId"] for _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"], name
        assert set(operation["tags"]) <= tags, name
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (name, parameter["name"])


def test_references_lead_somewhere_and_no_schema_is_left_over(document: dict[str, Any]):
    found: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(reference := value.get("$ref"), str):
                found.add(reference.removeprefix("#/components/schemas/"))
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(document)
    assert found == set(document["components"]["schemas"])


def test_what_is_several_is_spoken_of_as_several(document: dict[str, Any]):
    text = json.dumps(document)
    assert "there are no weights" in text
    for wrong in ("candidates is ", "weights is ", "is no candidates", "is no weights", "candidates's", "weights's"):
        assert wrong not in text


def test_request_bodies_have_examples_that_are_accepted(document: dict[str, Any], accepts: Accepts):
    for path in ("/v1/jobs", "/v1/jobs/validate"):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        reference = document["components"]["schemas"]["JobRequest"]
        accepts(reference, reference["examples"][0])
        assert body["schema"]
    form = document["paths"]["/v1/datasets"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["required"] == ["file"]


def test_every_event_that_a_webhook_is_told_has_an_example_that_its_schema_accepts(
    document: dict[str, Any], accepts: Accepts
):
    assert set(document["webhooks"]) == {*EVENT_TYPES, PING}
    for name, item in document["webhooks"].items():
        content = item["post"]["requestBody"]["content"]["application/json"]
        assert content["example"]["type"] == name
        for schema in (content["schema"], document["components"]["schemas"]["WebhookPayload"]):
            accepts(schema, content["example"])
        TypeAdapter(WebhookPayload).validate_python(content["example"])
