"""What a key may: every route says its scope, and whoever has less is refused before anything is looked at."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute, iter_route_contexts

from service.auth import current_caller
from service.scopes import READING, scope_of
from service.store import projects
from service.store.database import now
from service.store.models import ApiKey
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.projects import Scope
from tests.service.api.conftest import NewApi
from tests.service.api.world import Api, assert_problem, spec_for

FOR_ANY_KEY = {
    "POST /v1/jobs/validate",  # changes nothing
    "POST /v1/evaluations/validate",
    "POST /v1/candidates/validate",
    "POST /v1/links",
    "POST /v1/sessions",  # who may read may do so in a browser
    "DELETE /v1/sessions/current",
    "DELETE /v1/sessions/{session_id}",
}


@pytest.fixture
def locked(new_api: NewApi) -> Api:
    return new_api(api_keys_required=True)


def header(api: Api, scope: Scope, lifetime: timedelta | None = None) -> dict[str, str]:
    key, _ = projects.create_key(api.parts.store, PROJECT, scope, scope=scope, lifetime=lifetime)
    return {"Authorization": f"Bearer {key}"}


def routes(api: Api) -> Iterator[tuple[str, str, APIRoute]]:
    app = api.client.app
    assert isinstance(app, FastAPI)
    for route in (one.original_route for one in iter_route_contexts(app.routes)):
        if isinstance(route, APIRoute) and route.path.startswith("/v1"):
            yield from ((method, route.path, route) for method in sorted(route.methods or ()))


def asks_who_it_is(dependant: Dependant) -> bool:
    return dependant.call is current_caller or any(map(asks_who_it_is, dependant.dependencies))


def test_no_route_is_without_a_scope(locked: Api):
    found = list(routes(locked))
    assert len(found) > 30
    assert [f"{method} {path}" for method, path, route in found if not asks_who_it_is(route.dependant)] == []


def test_a_key_that_reads_is_refused_by_every_route_that_changes_something(locked: Api):
    headers = header(locked, "read")
    changing = [(method, path) for method, path, _ in routes(locked) if method not in READING]
    for method, path in changing:
        if f"{method} {path}" in FOR_ANY_KEY:
            continue
        answer = locked.client.request(method, _filled(path), headers=headers)
        assert_problem(answer, 403, "insufficient_scope")
        assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


def test_a_route_refuses_every_key_of_less_than_its_scope_and_no_key_of_its_own(locked: Api):
    keys: dict[Scope, dict[str, str]] = {scope: header(locked, scope) for scope in ("read", "submit", "admin")}
    for method, path, route in routes(locked):
        wanted, is_allowed = scope_of(route), False
        for scope, headers in keys.items():
            is_allowed = is_allowed or scope == wanted
            status = locked.client.request(method, _filled(path), headers=headers).status_code
            assert (status != 403) is is_allowed, (method, path, scope)
            assert status != 401


def test_keys_ask_for_an_admin_and_jobs_do_not(locked: Api):
    submit, body = header(locked, "submit"), {"spec": spec_for(locked.ready_dataset())}
    assert locked.client.post("/v1/jobs", json=body, headers=submit).status_code == 201
    assert_problem(locked.client.get("/v1/keys", headers=submit), 403, "insufficient_scope")
    assert locked.client.post("/v1/jobs/validate", json=body, headers=header(locked, "read")).json()["valid"]


def _filled(path: str) -> str:
    return path.replace("{", "").replace("}", "")


def test_the_document_names_the_scope_of_every_operation(locked: Api):
    document = locked.client.get("/openapi.json").json()
    said = {
        f"{method.upper()} {path}": operation["security"]
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    read, submit, admin = ([{"ApiKey": [scope]}, {"Session": [scope]}] for scope in ("read", "submit", "admin"))
    assert said["GET /v1/jobs"] == said["POST /v1/jobs/validate"] == read
    assert said["POST /v1/jobs"] == submit
    assert said["GET /v1/keys"] == admin
    assert said["GET /v1/jobs/{job_id}/report.html"] == [*read, {"Link": []}]
    assert said["GET /healthz"] == []


# --- a key's life --------------------------------------------------------------------------------------------------


def test_an_admin_makes_a_key_that_is_shown_once(any_key_api: tuple[Api, dict[str, str]]):
    api, admin = any_key_api
    answer = api.client.post("/v1/keys", json={"name": "ci", "scope": "read", "expires_in_days": 7}, headers=admin)
    assert answer.status_code == 201
    made = answer.json()
    headers = {"Authorization": f"Bearer {made['key']}"}
    assert api.client.get("/v1/jobs", headers=headers).status_code == 200
    shown = api.client.get(answer.headers["location"], headers=admin).json()
    assert (shown["scope"], shown["status"], shown["name"]) == ("read", "active", "ci")
    assert shown["last_used_at"] is not None
    secret = made["key"].removeprefix(made["prefix"])
    assert secret not in api.client.get("/v1/keys", headers=admin).text + str(shown)


@pytest.fixture(params=["embedded", "deployed"])
def any_key_api(request: pytest.FixtureRequest, new_api: NewApi) -> tuple[Api, dict[str, str]]:
    """A server with keys on SQLite and on PostgreSQL, and an admin's key."""
    settings = {}
    if request.param == "deployed":
        postgres = request.getfixturevalue("postgres_server")
        settings = {"database_url": postgres.url(postgres.make_database())}
    api = new_api(api_keys_required=True, **settings)
    return api, header(api, "admin")


def test_a_revoked_key_is_refused_and_stays_in_the_list(locked: Api):
    admin, key = header(locked, "admin"), header(locked, "submit")
    (revoked, _) = locked.client.get("/v1/keys", headers=admin).json()["data"]
    for _ in "ab":
        answer = locked.client.post(f"/v1/keys/{revoked['id']}/revoke", headers=admin)
        assert (answer.status_code, answer.json()["status"]) == (200, "revoked")
    refused = locked.client.get("/v1/jobs", headers=key)
    assert_problem(refused, 401, "unauthorized")
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    again = locked.client.post(f"/v1/keys/{revoked['id']}/rotate", json={}, headers=admin)
    assert_problem(again, 409, "key_not_active")


def test_an_expired_key_is_refused(locked: Api):
    headers = header(locked, "admin", timedelta(hours=1))
    assert locked.client.get("/v1/jobs", headers=headers).status_code == 200
    with locked.parts.store.write() as session:
        session.execute(sa.update(ApiKey).values(expires_at=now(session) - timedelta(seconds=1)))
    assert_problem(locked.client.get("/v1/jobs", headers=headers), 401, "unauthorized")
    (listed,) = locked.client.get("/v1/keys", headers=header(locked, "admin")).json()["data"][1:]
    assert listed["status"] == "expired"


def test_a_rotated_key_goes_on_for_its_grace(any_key_api: tuple[Api, dict[str, str]]):
    api, admin = any_key_api
    old = api.client.post("/v1/keys", json={"name": "ci", "scope": "read"}, headers=admin).json()
    answer = api.client.post(f"/v1/keys/{old['id']}/rotate", json={"grace_seconds": 3600}, headers=admin)
    assert answer.status_code == 201
    new = answer.json()
    assert (new["name"], new["scope"], new["rotated_from_id"]) == ("ci", "read", old["id"])
    for key in (old["key"], new["key"]):
        assert api.client.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200
    at_once = api.client.post(f"/v1/keys/{old['id']}/rotate", json={"grace_seconds": 0}, headers=admin)
    assert at_once.status_code == 201
    over = api.client.get("/v1/jobs", headers={"Authorization": f"Bearer {old['key']}"})
    assert_problem(over, 401, "unauthorized")


def test_another_projects_key_is_not_there(locked: Api):
    other = projects.create_project(locked.parts.store, "other").id
    _, record = projects.create_key(locked.parts.store, other, "theirs")
    admin = header(locked, "admin")
    for method, path in (("GET", ""), ("POST", "/revoke")):
        assert_problem(
            locked.client.request(method, f"/v1/keys/{record.id}{path}", headers=admin), 404, "key_not_found"
        )


def test_last_use_is_written_at_most_once_a_minute(locked: Api):
    headers = header(locked, "read")
    (key,) = projects.list_keys(locked.parts.store, PROJECT)
    assert key.last_used_at is None

    def used():
        assert locked.client.get("/v1/jobs", headers=headers).status_code == 200
        (found,) = projects.list_keys(locked.parts.store, PROJECT)
        assert found.last_used_at is not None
        return found.last_used_at

    first = used()
    assert used() == first
    with locked.parts.store.write() as session:
        session.execute(sa.update(ApiKey).values(last_used_at=first - timedelta(minutes=1)))
    assert used() >= first
