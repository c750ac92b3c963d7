"""Signed links: one file or stream, for some minutes, for whom no header can be set."""

import logging
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from service.logs import configure_logging
from service.signed_links import Link, signed
from service.store import link_secrets, projects
from service.store.database import now
from service.store.models import LinkSecret
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from tests.service.api.conftest import NewApi
from tests.service.api.world import PNG, Api, assert_problem, bearer, sign_in, spec_for


def ran(api: Api, headers: dict[str, str]) -> str:
    """Id of a job that has ended, with all that it left."""
    body = {"spec": spec_for(api.ready_dataset())}
    job_id = api.client.post("/v1/jobs", json=body, headers=headers).json()["id"]
    api.run(job_id)
    return job_id


def picture_of(api: Api, job_id: str, headers: dict[str, str]) -> str:
    (sample,) = api.client.get(f"/v1/jobs/{job_id}/samples", headers=headers).json()["data"]
    return sample["image_url"]


def link_to(api: Api, path: str, headers: dict[str, str], **more: Any) -> str:
    answer = api.client.post("/v1/links", json={"path": path, **more}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["url"]


def test_a_picture_opens_without_a_header_and_by_ranges(any_keyed_api: Api):
    headers = bearer(any_keyed_api, "submit")
    path = picture_of(any_keyed_api, ran(any_keyed_api, headers), headers)
    assert_problem(any_keyed_api.client.get(path), 401, "unauthorized")
    url = link_to(any_keyed_api, path, headers)
    assert url.startswith(path)
    answer = any_keyed_api.client.get(url)
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, PNG, "image/png")
    part = any_keyed_api.client.get(url, headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, b"PNG")


def test_events_stream_over_a_link(keyed_api: Api):
    headers = bearer(keyed_api, "submit")
    job_id = ran(keyed_api, headers)
    url = link_to(keyed_api, f"/v1/jobs/{job_id}/events", headers)
    answer = keyed_api.client.get(url, headers={"Accept": "text/event-stream"})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert "event: done" in answer.text
    last = answer.text.rpartition("id: ")[2].strip()
    again = keyed_api.client.get(url, headers={"Accept": "text/event-stream", "Last-Event-ID": last})
    assert again.status_code == 204


def test_parameters_are_part_of_what_is_signed(keyed_api: Api):
    headers = bearer(keyed_api, "submit")
    job_id = ran(keyed_api, headers)
    (checkpoint,) = keyed_api.client.get(f"/v1/jobs/{job_id}/checkpoints", headers=headers).json()["data"]
    path = f"/v1/checkpoints/{checkpoint['id']}/download"
    url = link_to(keyed_api, f"{path}?format=safetensors", headers)
    assert keyed_api.client.get(url).status_code == 200
    for other in (
        url.replace("format=safetensors&", ""),
        url.replace("safetensors", "zip"),
        f"{url}&include=weights",
    ):
        assert_problem(keyed_api.client.get(other), 401, "unauthorized")


def test_a_link_opens_nothing_but_what_it_was_made_for(keyed_api: Api):
    headers = bearer(keyed_api, "submit")
    job_id = ran(keyed_api, headers)
    path = picture_of(keyed_api, job_id, headers)
    url = link_to(keyed_api, path, headers)
    signature = url.partition("?")[2]
    for other in (f"/v1/jobs/{job_id}/report.html", f"/v1/jobs/{job_id}", "/v1/jobs", "/v1/keys"):
        answer = keyed_api.client.get(f"{other}?{signature}")
        assert answer.status_code in (401, 422), other
    assert keyed_api.client.head(url).status_code in (401, 422)
    assert keyed_api.client.post(f"/v1/jobs/{job_id}/cancel?{signature}").status_code in (401, 422)


def test_a_changed_link_is_none(keyed_api: Api):
    headers = bearer(keyed_api, "submit")
    path = picture_of(keyed_api, ran(keyed_api, headers), headers)
    url = link_to(keyed_api, path, headers)
    link = Link.parsed(url.partition("link=")[2])
    assert link is not None
    _, other = projects.create_key(keyed_api.parts.store, PROJECT, "other")
    for changed in (
        Link(link.secret_id, link.maker_id, link.ends_at + 1, link.signature),
        Link(link.secret_id, other.id, link.ends_at, link.signature),
        Link("lks_" + 26 * "0", link.maker_id, link.ends_at, link.signature),
        Link(link.secret_id, link.maker_id, link.ends_at, link.signature[:-1]),
    ):
        assert_problem(keyed_api.client.get(f"{path}?link={changed}"), 401, "unauthorized")
    for nonsense in ("", "...", "a.b.c.d", f"{link}.", "\u00fc.b.1.d", f"lks.key.{10**30}.x"):
        assert_problem(keyed_api.client.get(path, params={"link": nonsense}), 401, "unauthorized")


def test_a_link_ends_in_time(keyed_api: Api):
    headers = bearer(keyed_api, "submit")
    path = picture_of(keyed_api, ran(keyed_api, headers), headers)
    link = Link.parsed(link_to(keyed_api, path, headers).partition("link=")[2])
    assert link is not None
    secret = link_secrets.of(keyed_api.parts.store, link.secret_id)
    assert secret is not None
    over = signed(link.secret_id, secret, link.maker_id, link.ends_at - 301, path)
    assert_problem(keyed_api.client.get(f"{path}?link={over}"), 401, "unauthorized")


def test_a_link_dies_with_its_key_and_with_its_session(any_keyed_api: Api):
    api, headers = any_keyed_api, bearer(any_keyed_api, "submit")
    path = picture_of(api, ran(api, headers), headers)
    by_key = link_to(api, path, headers)
    opened = sign_in(api, headers=bearer(api, "read"))
    token = {"X-CSRF-Token": opened["csrf_token"]}
    by_session = link_to(api, path, token)
    api.client.delete("/v1/sessions/current", headers=token)
    assert_problem(api.client.get(by_session), 401, "unauthorized")
    assert api.client.get(by_key).status_code == 200
    projects.revoke_key(api.parts.store, PROJECT, Link.parsed(by_key.partition("link=")[2]).maker_id)  # pyright: ignore[reportOptionalMemberAccess]
    assert_problem(api.client.get(by_key), 401, "unauthorized")


def test_a_link_opens_nothing_of_another_project(keyed_api: Api):
    owner = bearer(keyed_api, "submit")
    path = picture_of(keyed_api, ran(keyed_api, owner), owner)
    stranger = bearer(keyed_api, project_id=projects.create_project(keyed_api.parts.store, "other").id)
    assert_problem(keyed_api.client.get(link_to(keyed_api, path, stranger)), 404, "job_not_found")


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs",
        "/v1/keys",
        "/metrics",
        "/docs",
        "https://evil.example/v1/jobs/job_1/report.html",
        "//evil.example/v1/jobs/job_1/report.html",
        "http://[",
        "/v1/jobs/job_1/report.html?link=a.b.1.c",
        "/v1/jobs/job_1/report.html#top",
    ],
)
def test_what_is_no_file_and_no_stream_gets_no_link(keyed_api: Api, path: str):
    answer = keyed_api.client.post("/v1/links", json={"path": path}, headers=bearer(keyed_api))
    assert assert_problem(answer, 422, "invalid_request")["errors"][0]["code"] == "not_linkable"


def test_no_link_is_good_for_longer_than_the_operator_allows(new_api: NewApi):
    api = new_api(api_keys_required=True, longest_link_seconds=60)
    path, headers = "/v1/jobs/job_1/report.html", bearer(api)
    answer = api.client.post("/v1/links", json={"path": path, "expires_in": 61}, headers=headers)
    assert assert_problem(answer, 422, "invalid_request")["errors"][0]["pointer"] == "/expires_in"
    link_to(api, path, headers, expires_in=60)


def test_the_secret_is_a_new_one_every_day_and_the_old_one_good_for_its_last_links(any_keyed_api: Api):
    store, headers = any_keyed_api.parts.store, bearer(any_keyed_api, "submit")
    path = picture_of(any_keyed_api, ran(any_keyed_api, headers), headers)
    old = link_to(any_keyed_api, path, headers)
    first, _ = link_secrets.to_sign(store)
    assert link_secrets.to_sign(store)[0] == first

    def age(by: timedelta) -> None:
        with store.write() as session:
            made = now(session) - by
            session.execute(sa.update(LinkSecret).where(LinkSecret.id == first).values(created_at=made))

    age(link_secrets.SIGNS_FOR)
    assert link_secrets.to_sign(store)[0] != first
    assert any_keyed_api.client.get(old).status_code == 200
    age(link_secrets.SIGNS_FOR + link_secrets.LONGEST_LINK)
    assert_problem(any_keyed_api.client.get(old), 401, "unauthorized")


def test_a_store_that_signs_addresses_of_its_own_goes_on_to(
    new_api: NewApi, request: pytest.FixtureRequest, s3_settings: dict[str, Any]
):
    api = new_api(api_keys_required=True, broker_url=request.getfixturevalue("redis_url"), **s3_settings)
    headers = bearer(api, "submit")
    url = link_to(api, picture_of(api, ran(api, headers), headers), headers)
    answer = api.client.get(url, follow_redirects=False)
    assert answer.status_code == 307
    assert "link=" not in answer.headers["location"]
    assert api.download(url) == PNG


def test_a_server_without_keys_answers_the_address_as_it_is(api: Api):
    path = f"/v1/jobs/{api.new_job()}/events"
    assert link_to(api, path, {}) == path


def test_an_access_log_does_not_hold_what_opens_a_file():
    configure_logging()
    address = "/v1/jobs/job_1/report.html?contender=a&link=lks_1.key_1.1.secret&more=1"
    said, values = '%s - "%s %s HTTP/%s" %d', ("192.0.2.1:5", "GET", address, "1.1", 200)
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, said, values, None)
    assert logging.getLogger("uvicorn.access").filter(record)
    told = '192.0.2.1:5 - "GET /v1/jobs/job_1/report.html?contender=a&link=...&more=1 HTTP/1.1" 200'
    assert record.getMessage() == told
