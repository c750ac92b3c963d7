"""What is asked of a running job, and what a pause keeps, over HTTP and as its worker hears it."""

from typing import Any

from alignment_core.events import ActionAnswered, PhaseChanged
from service.store import actions, leases
from tests.service.api.world import Api, assert_problem, run_started, step_completed


def running(api: Api) -> tuple[str, int]:
    job_id = api.new_job()
    attempt = api.claim(job_id)
    api.say(job_id, attempt, run_started(api.spec_of(job_id), 4), PhaseChanged(phase="training"), step_completed(1))
    return job_id, attempt


def ask(api: Api, job_id: str, action: str, **headers: str) -> dict[str, Any]:
    answer = api.client.post(f"/v1/jobs/{job_id}/actions", json={"action": action}, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_request_waits_until_the_run_has_answered(any_api: Api):
    api = any_api
    job_id, attempt = running(api)
    asked = ask(api, job_id, "probe")
    assert (asked["status"], asked["step"]) == ("waiting", None)
    assert actions.waiting(api.parts.store, job_id) == [(asked["id"], "probe")]
    api.say(job_id, attempt, ActionAnswered(id=asked["id"], action="probe", step=2, metrics={"brightness_gain": 0.5}))
    (found,) = api.client.get(f"/v1/jobs/{job_id}/actions").json()["data"]
    assert (found["status"], found["step"], found["metrics"]) == ("done", 2, {"brightness_gain": 0.5})
    assert actions.waiting(api.parts.store, job_id) == []


def test_a_request_outlives_a_lost_worker_and_is_asked_once_by_its_key(any_api: Api):
    api = any_api
    job_id, attempt = running(api)
    key = {"Idempotency-Key": "once"}
    asked = ask(api, job_id, "checkpoint", **key)
    assert ask(api, job_id, "checkpoint", **key)["id"] == asked["id"]
    leases.give_back(api.parts.store, job_id, attempt)
    api.claim(job_id)
    assert actions.waiting(api.parts.store, job_id) == [(asked["id"], "checkpoint")]


def test_nothing_is_asked_of_a_job_that_has_ended(api: Api):
    job_id, attempt = running(api)
    waiting = ask(api, job_id, "sample")
    leases.finish(api.parts.store, job_id, attempt, "succeeded")
    assert_problem(api.client.post(f"/v1/jobs/{job_id}/actions", json={"action": "sample"}), 409, "invalid_transition")
    (found,) = api.client.get(f"/v1/jobs/{job_id}/actions").json()["data"]
    assert (found["id"], found["status"]) == (waiting["id"], "unanswered")


def test_the_answer_of_another_job_answers_nothing(api: Api):
    (job_id, _), (other, attempt) = running(api), running(api)
    asked = ask(api, job_id, "probe")
    api.say(other, attempt, ActionAnswered(id=asked["id"], action="probe", step=1))
    assert actions.waiting(api.parts.store, job_id) == [(asked["id"], "probe")]


def test_a_pause_that_drops_steps_needs_a_checkpoint_and_says_what_it_keeps(any_api: Api):
    api = any_api
    job_id, attempt = running(api)
    drop = {"keep": "last_checkpoint"}
    refused = api.client.post(f"/v1/jobs/{job_id}/pause", json=drop)
    assert_problem(refused, 409, "invalid_transition")
    assert "all would be lost" in refused.json()["detail"]
    api.save_checkpoint(job_id, attempt, 1)
    api.say(job_id, attempt, step_completed(2))
    asked = api.client.post(f"/v1/jobs/{job_id}/pause").json()
    assert (asked["status"], asked["pause_keeps"]) == ("pausing", "last_step")
    assert leases.poll(api.parts.store, job_id, attempt) == "pause"
    assert api.client.post(f"/v1/jobs/{job_id}/pause", json=drop).json()["pause_keeps"] == "last_checkpoint"
    assert leases.renew(api.parts.store, job_id, attempt, 60) == "discard"
    leases.give_back(api.parts.store, job_id, attempt)
    paused = api.client.get(f"/v1/jobs/{job_id}").json()
    assert (paused["status"], paused["progress"]["step"]) == ("paused", 1)
    assert api.client.post(f"/v1/jobs/{job_id}/resume").json()["pause_keeps"] is None
