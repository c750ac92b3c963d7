"""Webhooks over HTTP: for admins alone, the secret once, addresses that may be, the log, and what audit tells of it."""

from datetime import timedelta
from typing import Any

import pytest

from service.store import audit, deliveries, projects
from service.store.deliveries import Answer
from service.store.projects import DEFAULT_PROJECT_ID
from tests.service.api.conftest import NewApi
from tests.service.api.world import Api, assert_problem

URL = "https://hooks.example.org/attune?token=1"


def make(api: Api, **body: Any) -> dict[str, Any]:
    answer = api.client.post("/v1/webhooks", json={"url": URL, **body})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_webhook_lives_and_its_secret_is_shown_once(any_api: Api) -> None:
    made = make(any_api, events=["job.failed"], description="ours")
    path = f"/v1/webhooks/{made['id']}"
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert any_api.client.get(path).json() == made
    assert any_api.client.get("/v1/webhooks").json()["data"] == [made]
    rotated = any_api.client.post(f"{path}/rotate", json={"grace_seconds": 60}).json()
    assert rotated["secret"].startswith("whsec_")
    assert rotated["secret"] != secret
    assert rotated["old_secret_until"] is not None
    changed = any_api.client.put(path, json={"url": URL, "enabled": False}).json()
    assert (changed["events"], changed["enabled"], changed["disabled_because"]) == (None, False, "asked")
    assert any_api.client.delete(path).json() == {"id": made["id"], "object": "webhook", "deleted": True}
    assert_problem(any_api.client.get(path), 404, "webhook_not_found")


def test_a_champion_is_told_and_the_log_says_what_came_of_it(api: Api) -> None:
    hook = make(api)
    path = f"/v1/webhooks/{hook['id']}"
    job_id = api.new_job()
    api.run(job_id)
    api.client.post("/v1/promotions", json={"checkpoint_id": api.checkpoint_id(job_id)})
    found = api.client.get(f"{path}/deliveries").json()["data"]
    assert [one["type"] for one in found] == ["champion.changed", "job.succeeded", "dataset.ready"]
    assert found[0]["payload"]["data"]["checkpoint_id"] == api.checkpoint_id(job_id)
    claim = deliveries.claim(api.parts.store, 60)
    assert claim is not None
    deliveries.record(api.parts.store, claim, Answer(200, 7, answer="thanks"), timedelta(days=5))
    (done,) = api.client.get(f"{path}/deliveries", params={"state": "delivered"}).json()["data"]
    assert (done["tries"][0]["status"], done["tries"][0]["answer"], done["next_try_at"]) == (200, "thanks", None)
    again = api.client.post(f"{path}/deliveries/{done['id']}/redeliver")
    assert (again.status_code, again.json()["state"]) == (202, "pending")
    promoted = api.client.get("/v1/audit", params={"action": "POST /v1/promotions"}).json()["data"]
    assert not any(one.startswith("dlv_") for one in promoted[0]["object_ids"])


def test_a_test_is_sent_to_one_that_is_off_too_and_a_redelivery_is_not(api: Api) -> None:
    path = f"/v1/webhooks/{make(api, enabled=False)['id']}"
    ping = api.client.post(f"{path}/test")
    assert (ping.status_code, ping.json()["type"]) == (202, "webhook.ping")
    (entry,) = api.client.get("/v1/audit", params={"action": "POST /v1/webhooks/{webhook_id}/test"}).json()["data"]
    assert entry["outcome"] == "done"
    api.client.put(path, json={"url": URL})
    api.ready_dataset()
    (told, _) = api.client.get(f"{path}/deliveries").json()["data"]
    api.client.put(path, json={"url": URL, "enabled": False})
    assert_problem(api.client.post(f"{path}/deliveries/{told['id']}/redeliver"), 409, "webhook_disabled")


def test_what_is_asked_to_be_sent_stands_and_falls_with_its_row_in_the_log(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"/v1/webhooks/{make(api)['id']}"
    told = api.client.post(f"{path}/test").json()
    claim = deliveries.claim(api.parts.store, 60)
    assert claim is not None
    deliveries.record(api.parts.store, claim, Answer(200, 7), timedelta(days=5))

    def refuse(*_: Any) -> None:
        raise RuntimeError("no room")

    monkeypatch.setattr(audit, "add", refuse)
    assert api.client.post(f"{path}/deliveries/{told['id']}/redeliver").status_code == 500
    assert api.client.post(f"{path}/test").status_code == 500
    monkeypatch.undo()
    (only,) = api.client.get(f"{path}/deliveries").json()["data"]
    assert (only["id"], only["state"]) == (told["id"], "delivered")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://hooks.example.org/",
            "https://127.0.0.1/",
            "https://[::1]/",
            "https://10.0.0.1/x",
            "ftp://example.org/",
        ),
        *("https://me:secret@example.org/", "https://example.org/#there", "https:///x", "https://example.org:99999/"),
        *("https://169.254.169.254/latest", "https://[::ffff:10.0.0.1]/", "https://ex ample.org/"),
    ],
)
def test_an_address_that_webhooks_may_not_have_is_refused(api: Api, url: str) -> None:
    problem = assert_problem(api.client.post("/v1/webhooks", json={"url": url}), 422, "invalid_request")
    assert problem["errors"][0]["pointer"] == "/url"


def test_the_operator_may_allow_private_ones(new_api: NewApi) -> None:
    make(new_api(webhooks_allow_private=True), url="http://10.0.0.1/hook")


def test_their_number_is_bounded(new_api: NewApi) -> None:
    api = new_api(webhooks_per_project=1)
    make(api)
    assert_problem(api.client.post("/v1/webhooks", json={"url": URL}), 409, "too_many_webhooks")


def test_other_projects_and_keys_without_the_scope_see_nothing(new_api: NewApi) -> None:
    api = new_api(api_keys_required=True)
    store = api.parts.store
    other = projects.create_project(store, "other")
    mine, theirs = (projects.create_key(store, one, "k")[0] for one in (DEFAULT_PROJECT_ID, other.id))
    weak, _ = projects.create_key(store, DEFAULT_PROJECT_ID, "k", scope="submit")
    made = api.client.post("/v1/webhooks", json={"url": URL}, headers=_key(mine)).json()
    path = f"/v1/webhooks/{made['id']}"
    assert_problem(api.client.get(path, headers=_key(theirs)), 404, "webhook_not_found")
    assert api.client.get("/v1/webhooks", headers=_key(theirs)).json()["data"] == []
    assert_problem(api.client.get(path, headers=_key(weak)), 403, "insufficient_scope")


def _key(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}
