"""Sessions: a browser shows a key once, and from then on a cookie that scripts cannot read and other pages cannot use."""

from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from service.cookies import NAME, csrf_token
from service.sign_ins import SignIns, network_of
from service.store import projects, sessions
from service.store.database import now
from service.store.models import ApiKey, BrowserSession
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from tests.service.api.conftest import NewApi
from tests.service.api.world import Api, assert_problem, bearer, sign_in, spec_for

HOUR = timedelta(hours=1)


def cookie_of(set_cookie: str) -> tuple[str, set[str]]:
    name, *attributes = set_cookie.lower().split("; ")
    return name.partition("=")[0], {one.partition("=")[0] if "age" in one else one for one in attributes}


def test_a_key_is_shown_once_and_the_cookie_stands_for_it(any_keyed_api: Api):
    api = any_keyed_api
    assert_problem(api.client.get("/v1/jobs"), 401, "unauthorized")
    opened = sign_in(api)
    assert api.client.get("/v1/jobs").status_code == 200
    body = {"spec": spec_for(api.ready_dataset())}
    made = api.client.post("/v1/jobs", json=body, headers={"X-CSRF-Token": opened["csrf_token"]})
    assert made.status_code == 201
    current = api.client.get("/v1/sessions/current").json()
    assert (current["id"], current["scope"], current["csrf_token"]) == (opened["id"], "submit", opened["csrf_token"])


def test_the_cookie_is_for_this_origin_and_no_script(keyed_api: Api, new_api: NewApi):
    plain = keyed_api.client.post("/v1/sessions", headers=bearer(keyed_api)).headers["set-cookie"]
    assert cookie_of(plain) == (NAME, {"httponly", "samesite=strict", "path=/", "max-age"})
    secure = new_api(api_keys_required=True, public_url="https://attune.example.org")
    told = secure.client.post("/v1/sessions", headers=bearer(secure)).headers["set-cookie"]
    assert cookie_of(told) == (f"__host-{NAME}", {"httponly", "samesite=strict", "path=/", "max-age", "secure"})
    by_proxy = TestClient(keyed_api.client.app, base_url="https://attune.example.org")
    told = by_proxy.post("/v1/sessions", headers=bearer(keyed_api)).headers["set-cookie"]
    assert cookie_of(told)[0] == f"__host-{NAME}"


def test_the_database_holds_no_token(keyed_api: Api):
    sign_in(keyed_api)
    token = keyed_api.client.cookies[NAME]
    with keyed_api.parts.store.read() as session:
        rows = session.execute(sa.text("SELECT * FROM sessions")).all()
    assert len(rows) == 1
    assert token not in str(rows)
    assert csrf_token(token) not in str(rows)


@pytest.mark.parametrize("sent", [{}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": 64 * "0"}])
def test_a_cookie_alone_changes_nothing(keyed_api: Api, sent: dict[str, str]):
    dataset_id = keyed_api.ready_dataset()
    sign_in(keyed_api)
    for method, path in (("POST", "/v1/jobs"), ("DELETE", f"/v1/datasets/{dataset_id}"), ("PUT", "/v1/retention")):
        answer = keyed_api.client.request(method, path, headers=sent)
        assert_problem(answer, 403, "csrf_token_missing")
    assert keyed_api.client.get(f"/v1/datasets/{dataset_id}").status_code == 200


def test_the_token_of_another_session_is_none(keyed_api: Api):
    first, _ = sign_in(keyed_api), keyed_api.client.cookies.clear()
    sign_in(keyed_api)
    answer = keyed_api.client.delete("/v1/sessions/current", headers={"X-CSRF-Token": first["csrf_token"]})
    assert_problem(answer, 403, "csrf_token_missing")


@pytest.mark.parametrize("said", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "same-site"}])
def test_another_pages_order_is_refused_even_with_the_token(keyed_api: Api, said: dict[str, str]):
    opened = sign_in(keyed_api)
    headers = {"X-CSRF-Token": opened["csrf_token"], **said}
    assert_problem(keyed_api.client.delete("/v1/sessions/current", headers=headers), 403, "cross_site_request")
    own = {"X-CSRF-Token": opened["csrf_token"], "Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert keyed_api.client.delete("/v1/sessions/current", headers=own).status_code == 200


def test_a_key_needs_no_token_and_counts_before_the_cookie(keyed_api: Api):
    sign_in(keyed_api, "read")
    body, headers = {"spec": spec_for(keyed_api.ready_dataset())}, bearer(keyed_api, "submit")
    assert keyed_api.client.post("/v1/jobs", json=body, headers=headers).status_code == 201
    wrong = keyed_api.client.get("/v1/jobs", headers={"Authorization": "Bearer nope"})
    assert_problem(wrong, 401, "unauthorized")


def test_a_session_may_what_its_key_may(keyed_api: Api):
    opened = sign_in(keyed_api, "read")
    headers = {"X-CSRF-Token": opened["csrf_token"]}
    assert_problem(keyed_api.client.post("/v1/jobs", json={}, headers=headers), 403, "insufficient_scope")
    assert_problem(keyed_api.client.get("/v1/keys"), 403, "insufficient_scope")
    assert keyed_api.client.delete("/v1/sessions/current", headers=headers).json()["deleted"]


def test_who_signs_out_is_out(any_keyed_api: Api):
    opened = sign_in(any_keyed_api)
    token = any_keyed_api.client.cookies[NAME]
    answer = any_keyed_api.client.delete("/v1/sessions/current", headers={"X-CSRF-Token": opened["csrf_token"]})
    assert (answer.status_code, answer.json()["id"]) == (200, opened["id"])
    assert NAME not in any_keyed_api.client.cookies, "the browser forgets it"
    stolen = any_keyed_api.client.get("/v1/jobs", headers={"Cookie": f"{NAME}={token}"})
    assert_problem(stolen, 401, "unauthorized")


def test_a_session_opens_no_other(keyed_api: Api):
    opened = sign_in(keyed_api)
    again = keyed_api.client.post("/v1/sessions", headers={"X-CSRF-Token": opened["csrf_token"]})
    assert_problem(again, 401, "unauthorized")


def _revoke(api: Api, key_id: str) -> None:
    projects.revoke_key(api.parts.store, PROJECT, key_id)


def _rotate(api: Api, key_id: str) -> None:
    projects.rotate_key(api.parts.store, PROJECT, key_id, HOUR)


def _expire(api: Api, key_id: str) -> None:
    with api.parts.store.write() as session:
        session.execute(sa.update(ApiKey).where(ApiKey.id == key_id).values(expires_at=now(session)))


@pytest.mark.parametrize("end", [_revoke, _rotate, _expire])
def test_a_session_ends_with_its_key(any_keyed_api: Api, end: Any):
    opened = sign_in(any_keyed_api)
    assert any_keyed_api.client.get("/v1/jobs").status_code == 200
    end(any_keyed_api, opened["key_id"])
    assert_problem(any_keyed_api.client.get("/v1/jobs"), 401, "unauthorized")


def test_a_key_that_expires_soon_opens_no_longer_session(keyed_api: Api):
    key, _ = projects.create_key(keyed_api.parts.store, PROJECT, "short", lifetime=HOUR)
    opened = sign_in(keyed_api, headers={"Authorization": f"Bearer {key}"})
    (record,) = projects.list_keys(keyed_api.parts.store, PROJECT)
    assert record.expires_at is not None
    assert opened["expires_at"] == record.expires_at.isoformat().replace("+00:00", "Z")


@pytest.mark.parametrize("column", ["last_used_at", "expires_at"])
def test_a_session_ends_unused_and_in_any_case(any_keyed_api: Api, column: str):
    store, idle = any_keyed_api.parts.store, any_keyed_api.parts.settings.session_idle
    sign_in(any_keyed_api)
    assert sessions.forget_ended(store, idle) == 0
    with store.write() as session:
        over = now(session) - (idle if column == "last_used_at" else timedelta(0))
        session.execute(sa.update(BrowserSession).values({column: over}))
    assert_problem(any_keyed_api.client.get("/v1/jobs"), 401, "unauthorized")
    assert any_keyed_api.client.get("/v1/sessions", headers=bearer(any_keyed_api)).json()["data"] == []
    assert sessions.forget_ended(store, idle) == 1


def test_use_keeps_a_session_going(keyed_api: Api):
    sign_in(keyed_api)
    idle = keyed_api.parts.settings.session_idle
    with keyed_api.parts.store.write() as session:
        nearly = now(session) - idle + timedelta(minutes=1)
        session.execute(sa.update(BrowserSession).values(last_used_at=nearly))
    assert keyed_api.client.get("/v1/jobs").status_code == 200
    with keyed_api.parts.store.read() as session:
        assert session.scalars(sa.select(BrowserSession.last_used_at)).one() > nearly + timedelta(minutes=5)


def test_admins_see_and_end_the_sessions_of_all_keys_and_others_their_own(any_keyed_api: Api):
    api = any_keyed_api
    reader, other = bearer(api, "read"), bearer(api, "submit")
    mine, theirs = sign_in(api, headers=reader), sign_in(api, headers=other)
    api.client.cookies.clear()
    listed = api.client.get("/v1/sessions", headers=bearer(api)).json()["data"]
    assert [one["id"] for one in listed] == [theirs["id"], mine["id"]]
    assert [one["id"] for one in api.client.get("/v1/sessions", headers=reader).json()["data"]] == [mine["id"]]
    assert_problem(api.client.delete(f"/v1/sessions/{theirs['id']}", headers=reader), 404, "session_not_found")
    stranger = bearer(api, project_id=projects.create_project(api.parts.store, "other").id)
    assert_problem(api.client.delete(f"/v1/sessions/{mine['id']}", headers=stranger), 404, "session_not_found")
    for one in (mine, theirs):
        assert api.client.delete(f"/v1/sessions/{one['id']}", headers=bearer(api)).json()["deleted"]
    assert api.client.get("/v1/sessions", headers=bearer(api)).json()["data"] == []


def test_a_key_has_no_more_sessions_than_so_many(keyed_api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sessions, "MOST_OF_A_KEY", 2)
    headers = bearer(keyed_api)
    ids = [sign_in(keyed_api, headers=headers)["id"] for _ in range(4)]
    listed = keyed_api.client.get("/v1/sessions", headers=headers).json()["data"]
    assert [one["id"] for one in listed] == [ids[3], ids[2]]


def test_signing_in_and_out_is_in_the_audit_log(keyed_api: Api):
    admin = bearer(keyed_api)
    opened = sign_in(keyed_api)
    keyed_api.client.delete("/v1/sessions/current", headers={"X-CSRF-Token": opened["csrf_token"]})
    found = keyed_api.client.get("/v1/audit", params={"key_id": opened["key_id"]}, headers=admin).json()["data"]
    assert [one["action"] for one in found] == ["DELETE /v1/sessions/current", "POST /v1/sessions"]
    assert found[1]["object_ids"] == [opened["id"]]


def test_tries_are_counted_by_address_and_by_key(new_api: NewApi):
    api = new_api(api_keys_required=True, sign_ins_per_minute=3)
    for _ in range(3):
        wrong = api.client.post("/v1/sessions", headers={"Authorization": "Bearer attune_000000000000_guess"})
        assert_problem(wrong, 401, "unauthorized")
    refused = api.client.post("/v1/sessions", headers=bearer(api))
    assert_problem(refused, 429, "too_many_sign_ins")
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert api.client.get("/v1/jobs", headers=bearer(api)).status_code == 200, "a key that is shown each time is no try"


def test_a_minute_later_tries_count_anew():
    time = 0.0
    tries = SignIns(2, clock=lambda: time)
    assert [tries.seconds_to_wait("a", "k") for _ in range(2)] == [0, 0]
    time = 15.0
    assert tries.seconds_to_wait("b", "k") == 45
    assert tries.seconds_to_wait("b", "other") == 0
    time = 60.0
    assert tries.seconds_to_wait("a", "k") == 0


def test_all_addresses_of_a_site_are_one():
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("192.0.2.1") != network_of("192.0.2.2")


def test_a_server_without_keys_has_nothing_to_sign_in_to(api: Api):
    assert_problem(api.client.post("/v1/sessions"), 409, "no_keys_here")
    assert api.client.get("/v1/jobs", headers={"Cookie": f"{NAME}=anything"}).status_code == 200
    assert api.client.post("/v1/jobs", json={"spec": spec_for(api.ready_dataset())}).status_code == 201
