"""Events over HTTP: pages, and a stream that loses nothing across a broken connection. On a real server."""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from alignment_core.events import WarningRaised
from service.api import events as events_api
from service.api import lookout
from service.store import leases
from service.store.metrics import metrics
from tests.service.api.live import serving, stream
from tests.service.api.world import Api, assert_problem, step_completed
from tests.service.store.plans import sent_by


@pytest.fixture
def url(api: Api) -> Iterator[str]:
    with serving(api.client.app) as address:  # pyright: ignore[reportArgumentType]
        yield address


def test_page_holds_events_oldest_first_and_links_to_the_next(any_api: Api):
    job_id = any_api.new_job()
    any_api.run(job_id)
    url, found = f"/v1/jobs/{job_id}/events?limit=3", []
    while url:
        answer = any_api.client.get(url)
        found += answer.json()["data"]
        assert answer.json()["last_id"] == found[-1]["id"]
        url = answer.links["next"]["url"] if answer.json()["has_more"] else None
    assert [event["sequence"] for event in found] == list(range(1, len(found) + 1))
    assert [event["type"] for event in found[:3]] == ["run_started", "phase_changed", "step_completed"]
    assert found[-1]["type"] == "run_completed"
    assert found[2]["data"]["metrics"] == {"loss": 0.69, "margin": 1.0}
    assert all(event["id"].startswith("evt_") and event["job_id"] == job_id for event in found)


def test_unknown_cursor_is_refused(api: Api):
    job_id, other = api.new_job(), api.new_job()
    api.say(other, api.claim(other), step_completed(1))
    (event,) = api.client.get(f"/v1/jobs/{other}/events").json()["data"]
    problem = assert_problem(api.client.get(f"/v1/jobs/{job_id}/events?after={event['id']}"), 422, "invalid_request")
    assert problem["errors"][0]["pointer"] == "query:after"


def test_stream_of_a_finished_job_replays_everything_and_ends_with_done(api: Api, url: str):
    job_id = api.new_job()
    api.run(job_id)
    page = api.client.get(f"/v1/jobs/{job_id}/events?limit=100").json()["data"]
    with stream(f"{url}/v1/jobs/{job_id}/events") as messages:
        *replayed, done = list(messages)
    assert [message["data"] for message in replayed] == page
    assert [(message["id"], message["event"]) for message in replayed] == [(one["id"], one["type"]) for one in page]
    assert done["event"] == "done"
    assert done["data"] == {"job_id": job_id, "status": "succeeded", "last_sequence": page[-1]["sequence"]}


def test_stream_goes_on_live_and_resumes_after_the_last_event_id(api: Api, url: str):
    job_id = api.new_job()
    attempt = api.claim(job_id)
    api.say(job_id, attempt, step_completed(1, 400))
    with stream(f"{url}/v1/jobs/{job_id}/events") as messages:
        assert next(messages)["data"]["data"]["step"] == 1
        api.say(job_id, attempt, step_completed(2, 400))
        last = next(messages)  # arrived while the stream was open
        assert last["data"]["data"]["step"] == 2
    api.say(job_id, attempt, step_completed(3, 400))  # while nobody listened
    with stream(f"{url}/v1/jobs/{job_id}/events", Last_Event_ID=last["id"]) as messages:
        assert next(messages)["data"]["data"]["step"] == 3
        leases.finish(api.parts.store, job_id, attempt, "succeeded")
        assert next(messages)["event"] == "done"


def test_events_written_while_the_stream_runs_arrive_once_and_in_order(api: Api, url: str):
    job_id = api.new_job()
    attempt, count = api.claim(job_id), 450  # more than one page of the stream

    def write() -> None:
        for step in range(1, count + 1):
            api.say(job_id, attempt, step_completed(step, count))
        leases.finish(api.parts.store, job_id, attempt, "succeeded")

    writer = threading.Thread(target=write)
    writer.start()
    with stream(f"{url}/v1/jobs/{job_id}/events") as messages:
        *steps, done = list(messages)
    writer.join()
    assert [message["data"]["sequence"] for message in steps] == list(range(1, count + 1))
    assert done["data"]["last_sequence"] == count


def test_quiet_stream_sends_heartbeats(api: Api, url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(events_api, "HEARTBEAT_SECONDS", 0.2)
    job_id = api.new_job()
    with stream(f"{url}/v1/jobs/{job_id}/events") as messages:
        beats = list(itertools.islice(messages, 3))
    assert beats == [{"comment": "ping"}] * 3


def test_server_stops_reading_the_database_when_the_client_is_gone(api: Api, url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lookout, "LOOK_AGAIN_SECONDS", 0.05)
    job_id = api.new_job()
    api.say(job_id, api.claim(job_id), step_completed(1))
    sent = sent_by(api.parts.store)
    with stream(f"{url}/v1/jobs/{job_id}/events") as messages:
        next(messages)
        time.sleep(0.3)
    time.sleep(0.5)
    seen = len(sent)
    time.sleep(0.5)
    assert len(sent) == seen > 0


def test_fifty_watchers_read_the_database_as_often_as_one(any_api: Api, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lookout, "LOOK_AGAIN_SECONDS", 0.2)
    job_id = any_api.new_job()
    attempt, store = any_api.claim(job_id), any_api.parts.store
    any_api.say(job_id, attempt, step_completed(1))
    with serving(any_api.client.app) as url, contextlib.ExitStack() as stack:  # pyright: ignore[reportArgumentType]
        address = f"{url}/v1/jobs/{job_id}/events"
        streams = [stack.enter_context(stream(address)) for _ in range(50)]
        for messages in streams:
            assert next(messages)["data"]["data"]["step"] == 1
        sent, began = sent_by(store), time.monotonic()
        any_api.say(job_id, attempt, step_completed(2))
        for messages in streams:
            assert next(messages)["data"]["data"]["step"] == 2
        time.sleep(0.5)
        looks = (time.monotonic() - began) / 0.2
        reads = [statement for statement, _ in sent if "FROM events" in statement]
        assert len(reads) == 1, "the event is read once for all of them"
        assert len(sent) <= looks + 10
        leases.finish(store, job_id, attempt, "succeeded")
        assert [next(messages)["event"] for messages in streams] == 50 * ["done"]


def test_browser_that_connects_again_after_the_end_is_told_to_stop(api: Api, url: str):
    """`EventSource` reconnects for ever to a stream that ends, and stops at 204."""
    ran, cancelled = api.new_job(), api.new_job()
    api.run(ran)
    api.client.post(f"/v1/jobs/{cancelled}/cancel")  # ended without a single event
    for job_id in (ran, cancelled):
        with stream(f"{url}/v1/jobs/{job_id}/events") as messages:
            *_, done = list(messages)
        headers = {"Accept": "text/event-stream", "Last-Event-ID": done["id"]}
        again = api.client.get(f"/v1/jobs/{job_id}/events", headers=headers)
        assert (done["event"], again.status_code, again.content) == ("done", 204, b"")
    page = api.client.get(f"/v1/jobs/{ran}/events?limit=100").json()
    assert done["id"] != page["last_id"] == api.client.get(f"/v1/jobs/{ran}/events?limit=100").json()["last_id"]
    with stream(f"{url}/v1/jobs/{ran}/events", Last_Event_ID=page["data"][-2]["id"]) as messages:
        assert [message["event"] for message in messages] == ["run_completed", "done"]


def test_many_streams_do_not_keep_other_requests_waiting(api: Api, url: str):
    job_id = api.new_job()
    threads = [
        threading.Thread(target=lambda: list(_follow(f"{url}/v1/jobs/{job_id}/events")), daemon=True)
        for _ in range(60)  # more than the threads that serve synchronous endpoints
    ]
    for thread in threads:
        thread.start()
    time.sleep(1)
    started = time.monotonic()
    assert httpx.get(f"{url}/v1/jobs/{job_id}", timeout=20).status_code == 200
    assert time.monotonic() - started < 5
    api.client.post(f"/v1/jobs/{job_id}/cancel")
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()


def _follow(url: str) -> Iterator[str]:
    with stream(url) as messages:
        for message in messages:
            yield message["event"]


def test_stream_of_an_unknown_job_is_a_problem_and_no_stream(api: Api):
    answer = api.client.get("/v1/jobs/job_" + "0" * 26 + "/events", headers={"Accept": "text/event-stream"})
    assert_problem(answer, 404, "job_not_found")


def test_figures_that_are_no_numbers_are_null_in_events_and_metrics(api: Api):
    job_id = api.new_job()
    attempt = api.claim(job_id)
    event = step_completed(1).model_copy(update={"metrics": {"loss": float("nan"), "margin": 1.0}})
    api.say(job_id, attempt, event, WarningRaised(code="odd", message="the loss is no number"))
    found = api.client.get(f"/v1/jobs/{job_id}/events").json()["data"]
    assert found[0]["data"]["metrics"] == {"loss": None, "margin": 1.0}
    assert metrics(api.parts.store, "proj_default", job_id)[0].metrics["loss"] is None
