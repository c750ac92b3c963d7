"""Every error is a problem document that names what was wrong and gives nothing of the inside away."""

import io
import json
import socket
import time
from contextlib import redirect_stderr
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from alignment_core.spec.mistakes import pointer
from service.api.schemas.job_examples import SPEC_EXAMPLE
from service.api.schemas.jobs import JobRequest
from service.errors import field_problems
from service.store import jobs
from tests.service.api.conftest import NewApi
from tests.service.api.live import serving
from tests.service.api.world import PARQUET, Api, assert_problem


def test_unknown_paths_and_methods_are_problems(api: Api):
    assert_problem(api.client.get("/nope"), 404, "not_found")
    assert_problem(api.client.get("/v1/jobs/"), 404, "not_found")
    problem = assert_problem(api.client.delete("/v1/jobs"), 405, "method_not_allowed")
    assert "DELETE" in problem["detail"]
    assert_problem(api.client.put("/healthz"), 405, "method_not_allowed")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/jobs", "GET, POST"),
        ("/healthz", "GET"),
        ("/v1/jobs/job_1/cancel", "POST"),
        ("/v1/checkpoints/ckpt_1/files/a/b", "GET, HEAD"),
    ],
)
def test_a_verb_that_is_not_answered_is_told_the_ones_that_are(api: Api, path: str, allowed: str):
    assert api.client.delete(path).headers["allow"] == allowed


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{nope", "application/json", 422, "invalid_request"),
        (b"", "application/json", 422, "invalid_request"),
        (b"[1]", "application/json", 422, "invalid_request"),
        (b'{"spec": NaN}', "application/json", 422, "invalid_request"),
        (b'{"spec": {}}', "text/plain", 422, "invalid_request"),
        (b'{"a": "\xff"}', "application/json", 400, "bad_request"),
        (b"[" * 100_000, "application/json", 400, "bad_request"),
        (b'{"name": "\\ud800", "spec": {}}', "application/json", 422, "invalid_request"),
    ],
)
def test_bodies_that_are_no_job_are_problems(api: Api, body: bytes, content_type: str, status: int, code: str):
    for path in ("/v1/jobs", "/v1/jobs/validate"):
        answer = api.client.post(path, content=body, headers={"Content-Type": content_type})
        if path.endswith("validate") and answer.status_code == 200:  # what can be read at all is judged, not refused
            assert answer.json()["valid"] is False
        else:
            assert_problem(answer, status, code)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/jobs/validate"])
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", None])
def test_json_that_is_sent_as_something_else_is_told_so(api: Api, path: str, content_type: str | None):
    headers = {"Content-Type": content_type} if content_type else {}
    answer = api.client.post(path, content=b'{"spec": {}}', headers=headers)
    (found,) = assert_problem(answer, 422, "invalid_request")["errors"]
    assert (found["pointer"], found["code"]) == ("header:Content-Type", "not_json")
    assert found["message"].startswith("send Content-Type: application/json")
    assert content_type is None or content_type in found["message"]


@pytest.mark.parametrize(
    ("change", "pointer", "message"),
    [
        ({"trainig": {}}, "/spec/trainig", "unknown field; did you mean 'training'?"),
        ({"model": {"type": "catalog", "nam": "shapes"}}, "/spec/model/nam", "unknown field; did you mean 'name'?"),
        (
            {"evaluation": {"rewards": [{"type": "brightness", "nme": "b"}]}},
            "/spec/evaluation/rewards/0/nme",
            "'name'?",
        ),
        ({"adapter": {"type": "lora", "alpha": 8, "alfa": 8}}, "/spec/adapter/alfa", "'alpha'?"),
        ({"model": {"type": "catalog", "name": "shapes", "zzz": 1}}, "/spec/model/zzz", "expected one of name, type"),
    ],
)
def test_unknown_field_is_told_which_one_may_have_been_meant(
    api: Api, change: dict[str, Any], pointer: str, message: str
):
    body = {"spec": {**SPEC_EXAMPLE, **change}}
    refused = assert_problem(api.client.post("/v1/jobs", json=body), 422, "invalid_request")["errors"]
    assert refused == api.client.post("/v1/jobs/validate", json=body).json()["errors"]
    (found,) = [one for one in refused if one["code"] == "extra_forbidden"]
    assert found["pointer"] == pointer
    assert found["message"].endswith(message)


def test_an_object_store_that_is_away_is_503_and_its_address_stays_inside(new_api: NewApi):
    api = new_api(
        object_store="s3",
        s3_bucket="attune",
        s3_endpoint_url="http://127.0.0.1:1",
        s3_access_key_id="key",
        s3_secret_access_key=SecretStr("hush"),
    )
    answer = api.client.post("/v1/datasets", files={"file": ("pairs.parquet", PARQUET)})
    problem = assert_problem(answer, 503, "unavailable")
    assert "object store" in problem["detail"]
    assert "127.0.0.1:1" not in answer.text
    assert answer.headers["retry-after"]
    (dataset,) = api.client.get("/v1/datasets").json()["data"]
    assert (dataset["status"], dataset["error"]["code"]) == ("failed", "upload_not_stored")


def test_a_request_that_gets_no_connection_is_503(api: Api, monkeypatch: pytest.MonkeyPatch):
    engine = api.parts.store.engine
    monkeypatch.setattr(engine.pool, "_timeout", 0.05)
    held = [engine.connect() for _ in range(15)]  # the whole pool
    try:
        assert_problem(api.client.get("/v1/jobs"), 503, "unavailable")
    finally:
        for connection in held:
            connection.close()


def test_body_that_is_too_large_is_refused(api: Api):
    from service.main import MAX_JSON_BYTES

    answer = api.client.post("/v1/jobs", content=b"x" * (MAX_JSON_BYTES + 1))
    assert_problem(answer, 413, "content_too_large")

    def chunks():
        for _ in range(MAX_JSON_BYTES // 2**20 + 1):
            yield b" " * 2**20

    headers = {"Content-Type": "application/json"}
    assert_problem(api.client.post("/v1/jobs", content=chunks(), headers=headers), 413, "content_too_large")


def test_unexpected_error_is_logged_and_says_nothing_outside(api: Api, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("password=hunter2 at /srv/secret.py")

    monkeypatch.setattr(jobs, "list_jobs", fail)
    log = io.StringIO()
    with redirect_stderr(log):
        answer = api.client.get("/v1/jobs")
    problem = assert_problem(answer, 500, "internal_error")
    assert "hunter2" not in answer.text
    assert "Traceback" not in answer.text
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    (failure,) = [line for line in lines if line["event"] == "request_failed"]
    assert "hunter2" in failure["exception"]
    assert failure["request_id"] == problem["request_id"]


def test_request_id_of_the_client_is_kept_when_it_is_plain(api: Api):
    assert api.client.get("/healthz", headers={"X-Request-ID": "trace-1"}).headers["x-request-id"] == "trace-1"
    for bad in ("a b", "x" * 129, "{evil}"):
        made = api.client.get("/healthz", headers={"X-Request-ID": bad}).headers["x-request-id"]
        assert made.startswith("req_")


def test_answers_carry_security_headers(api: Api):
    for path in ("/healthz", "/nope", "/v1/jobs"):
        headers = api.client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_log_lines_are_json_with_the_request_and_no_prompts(api: Api):
    log = io.StringIO()
    with redirect_stderr(log):
        answer = api.post_job(metadata={"note": "secret prompt"})
        api.client.get(f"/v1/jobs/{answer.json()['id']}?wait=0")
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    requests = [line for line in lines if line["event"] == "request"]
    assert [(line["method"], line["status"]) for line in requests] == [("POST", 201), ("GET", 200)]
    assert requests[0]["request_id"] == answer.headers["x-request-id"]
    assert requests[1]["job_id"] == answer.json()["id"]
    assert "secret prompt" not in log.getvalue()


# --- pointers ------------------------------------------------------------------------------------------------------


def _resolve(document: Any, pointer: str) -> Any:
    """RFC 6901, on its own."""
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["type", "a/b", "~", "x"]), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@given(
    part=st.sampled_from(["model", "method", "training", "evaluation", "adapter", "a/b", "~"]),
    value=_VALUES | st.fixed_dictionaries({"type": st.sampled_from(["catalog", "hub", "lora", "diffusion_dpo"])}, optional={"name": _VALUES, "dataset": _VALUES, "rewards": _VALUES, "rank": _VALUES}),
)  # fmt: skip
def test_every_pointer_leads_to_a_value_of_the_body_or_to_a_missing_field_of_one(part: str, value: Any):
    body = {"spec": {**SPEC_EXAMPLE, part: value}}
    try:
        JobRequest.model_validate(body)
    except ValidationError as error:
        for found in field_problems(error, body):
            if found.code == "missing":
                parent, _, name = found.pointer.rpartition("/")
                assert name not in _resolve(body, parent)
            else:
                _resolve(body, found.pointer)


def test_pointer_escapes_and_skips_union_tags():
    body = {"spec": {"a/b": [{"~": 1}]}}
    assert pointer(["spec", "tag", "a/b", 0, "~"], body, last_is_missing=False) == "/spec/a~1b/0/~0"
    assert pointer(["spec", "tag", "name"], body, last_is_missing=True) == "/spec/name"


def test_a_file_that_the_store_has_lost_is_404_and_says_so(api: Api):
    job_id = api.new_job()
    api.run(job_id)
    checkpoint_id = api.checkpoint_id(job_id)
    (file, *_) = api.client.get(f"/v1/checkpoints/{checkpoint_id}/files").json()["data"]
    for info in api.parts.objects.list("projects/"):
        api.parts.objects.delete(info.key)
    answer = api.client.get(f"/v1/checkpoints/{checkpoint_id}/files/{file['path']}")
    assert_problem(answer, 404, "file_lost")


def test_a_client_that_leaves_in_the_middle_of_an_upload_is_no_error_of_ours(
    api: Api, capfd: pytest.CaptureFixture[str]
):
    with serving(api.client.app) as url:  # pyright: ignore[reportArgumentType]
        host, port = url.removeprefix("http://").split(":")
        for content_type in ("multipart/form-data; boundary=b", "application/json"):
            path = "/v1/datasets" if "multipart" in content_type else "/v1/jobs"
            with socket.create_connection((host, int(port))) as connection:
                head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\nContent-Length: 9999\r\n\r\n"
                connection.sendall(head.encode() + b"--b\r\n")
                time.sleep(0.3)
        time.sleep(0.5)
    said = capfd.readouterr().err
    assert "client_gone" in said
    assert "request_failed" not in said
    assert "Traceback" not in said
