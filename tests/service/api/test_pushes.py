"""Pushes to the Hub over HTTP: where they may go, and what is told of them."""

import pytest

from service.store import pushes
from tests.service.api.conftest import NewApi
from tests.service.api.world import Api, assert_problem


@pytest.fixture
def pushing(new_api: NewApi) -> tuple[Api, str]:
    api = new_api(hub_namespaces=("our-team",))
    job_id = api.new_job()
    api.save_checkpoint(job_id, api.claim(job_id), 4)
    return api, f"/v1/checkpoints/{api.checkpoint_id(job_id)}/pushes"


def test_a_push_is_asked_for_once_and_says_its_commit(pushing: tuple[Api, str]):
    api, url = pushing
    answer = api.client.post(url, json={"repo_id": "our-team/shapes"})
    push = answer.json()
    assert (answer.status_code, push["status"], push["format"], push["private"]) == (202, "queued", "diffusers", True)
    assert answer.headers["location"].endswith(f"{url}/{push['id']}")
    assert api.client.post(url, json={"repo_id": "our-team/shapes"}).json()["id"] == push["id"]
    claim = pushes.claim(api.parts.store, push["id"], "worker", 60)
    assert claim is not None
    pushes.finish(api.parts.store, claim.id, claim.attempt, "c" * 40, f"https://hub.example.org/commit/{'c' * 40}")
    found = api.client.get(f"{url}/{push['id']}?wait=5").json()
    assert (found["status"], found["commit"]) == ("pushed", "c" * 40)
    assert [one["id"] for one in api.client.get(url).json()["data"]] == [push["id"]]


def test_a_push_is_forgotten_but_not_while_it_is_made(pushing: tuple[Api, str]):
    api, url = pushing
    body = {"repo_id": "our-team/shapes"}
    waiting = api.client.post(url, json=body).json()["id"]
    assert api.client.delete(f"{url}/{waiting}").json() == {"id": waiting, "object": "push", "deleted": True}
    assert_problem(api.client.get(f"{url}/{waiting}"), 404, "push_not_found")
    assert pushes.next_pushes(api.parts.store) == ()
    made = api.client.post(url, json=body).json()["id"]
    claim = pushes.claim(api.parts.store, made, "worker", 60)
    assert claim is not None
    problem = assert_problem(api.client.delete(f"{url}/{made}"), 409, "push_in_use")
    assert problem["detail"].endswith("a worker is making it; wait for its end")
    pushes.finish(api.parts.store, claim.id, claim.attempt, "c" * 40, "https://hub.example.org/commit")
    assert api.client.delete(f"{url}/{made}").status_code == 200
    assert api.client.get(url).json()["data"] == []
    for push_id in (made, "psh_1"):
        assert_problem(api.client.delete(f"{url}/{push_id}"), 404, "push_not_found")


@pytest.mark.parametrize("repo_id", ["shapes", "our-team/../x", "our-team/a/b", "/etc/passwd", "our-team/x y"])
def test_only_names_of_repositories_are_taken(pushing: tuple[Api, str], repo_id: str):
    api, url = pushing
    assert api.client.post(url, json={"repo_id": repo_id}).status_code == 422


def test_a_namespace_of_others_is_refused(pushing: tuple[Api, str]):
    api, url = pushing
    problem = assert_problem(api.client.post(url, json={"repo_id": "somebody/x"}), 403, "namespace_not_allowed")
    assert problem["detail"] == "this server pushes to repositories of our-team, and not of 'somebody'"


def test_a_server_that_allows_none_pushes_nowhere(api: Api):
    job_id = api.new_job()
    api.save_checkpoint(job_id, api.claim(job_id), 4)
    url = f"/v1/checkpoints/{api.checkpoint_id(job_id)}/pushes"
    assert_problem(api.client.post(url, json={"repo_id": "our-team/x"}), 403, "namespace_not_allowed")
    assert_problem(api.client.get(f"{url}/psh_01kaf0h2v7x3m5q8r1s4t6w9yz"), 404, "push_not_found")
