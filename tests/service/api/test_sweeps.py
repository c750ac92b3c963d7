"""Sweeps over HTTP: what is queued when, what a death in between costs, and who is called best."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import sqlalchemy as sa
from scipy import stats
from sqlalchemy.exc import OperationalError

from alignment_core.events import EvaluationCompleted, ResultSelected
from service.api.mean_intervals import t_quantile
from service.api.schemas.runs import REPORT_EXAMPLE
from service.store import deliveries, events, jobs, leases, sweeps, webhooks
from service.store.database import now
from service.store.deletion import has_live_jobs
from service.store.models import Report, SweepTrial
from service.store.projects import DEFAULT_PROJECT_ID
from tests.service.api.conftest import NewApi
from tests.service.api.world import Api, assert_problem, spec_for

RATES = [1e-4, 2e-4, 3e-4]


def body_of(api: Api, **changes: Any) -> dict[str, Any]:
    search = {"type": "grid", "axes": {"training.learning_rate": RATES}}
    return {"spec": spec_for(api.ready_dataset()), "search": search, "at_once": 2, "name": "rates", **changes}


def started(api: Api, **changes: Any) -> dict[str, Any]:
    answer = api.client.post("/v1/sweeps", json=body_of(api, **changes))
    assert answer.status_code == 201, answer.text
    return answer.json()


def look(api: Api, sweep_id: str) -> dict[str, Any]:
    return api.client.get(f"/v1/sweeps/{sweep_id}").json()["table"]


def statuses(api: Api, sweep_id: str) -> list[str]:
    return [trial["status"] for trial in look(api, sweep_id)["trials"]]


def feed(api: Api, sweep_id: str) -> None:
    sweeps.feed(api.parts.store, sweep_id, api.parts.bell.ring)


def end(
    api: Api, job_id: str, *, gain: float, p_value: float, base: float = 0.5, guard: str | None = None, **told: Any
) -> None:
    """The job's whole life, with a report of this gain."""
    attempt = api.claim(job_id)
    line = {**REPORT_EXAMPLE["rewards"][0], "gain": gain, "p_value": p_value, "base_mean": base}
    verdict = "improved" if gain > 0 and p_value < 0.05 else "not_improved"
    report = {**REPORT_EXAMPLE, "rewards": [line], "verdict": verdict, **told}
    chosen = ResultSelected(
        step=4, path="step-4", selected_by="last_step", last_step=4, stopped_by=guard, message="the last one"
    )
    for event in (chosen, EvaluationCompleted(step=4, path="report.json", report=report)):
        events.record_event(api.parts.store, job_id, attempt, event)
    leases.finish(api.parts.store, job_id, attempt, "succeeded")


def test_a_sweep_queues_as_many_jobs_at_once_as_it_may(any_api: Api):
    api = any_api
    sweep = started(api)
    sweep_id, trials = sweep["id"], sweep["table"]["trials"]
    assert [trial["status"] for trial in trials] == ["queued", "queued", "waiting"]
    first = api.client.get(f"/v1/jobs/{trials[0]['job_id']}").json()
    assert first["spec"]["training"]["learning_rate"] == RATES[0]
    assert (first["name"], first["metadata"]) == ("rates 0", {"sweep": sweep_id})
    feed(api, sweep_id)
    assert statuses(api, sweep_id) == ["queued", "queued", "waiting"], "there is no room yet"
    end(api, trials[0]["job_id"], gain=0.1, p_value=0.5)
    feed(api, sweep_id)
    assert statuses(api, sweep_id) == ["succeeded", "queued", "queued"]


def test_best_is_named_at_the_end_and_only_beyond_the_correction(any_api: Api):
    api = any_api

    def ended(p_values: list[float], **changes: Any) -> dict[str, Any]:
        sweep = started(api, at_once=3)
        for number, (trial, p_value) in enumerate(zip(sweep["table"]["trials"], p_values, strict=True)):
            assert look(api, sweep["id"])["best"] is None
            end(api, trial["job_id"], gain=0.1 + number / 100, p_value=p_value, **changes)
        feed(api, sweep["id"])
        return look(api, sweep["id"])

    table = ended([0.001, 0.002, 0.04])
    assert [trial["scores"][0]["holm_p_value"] for trial in table["trials"]] == pytest.approx([0.003, 0.004, 0.04])
    assert (table["best"], table["is_over"]) == (2, True)
    (source,) = table["source"]["scores"]
    assert (table["source"]["model"], source["name"], source["mean"]) == ("initial model", "colorfulness", 0.5)
    assert ended([0.02, 0.03, 0.04])["best"] is None, "each is below 0.05 by itself, and none of three together"


def test_webhooks_hear_the_best_that_the_table_names(any_api: Api):
    api, project = any_api, DEFAULT_PROJECT_ID
    hook = webhooks.create(
        api.parts.store,
        project_id=project,
        url="https://a.example",
        sealed_secret="s",
        most=9,
        event_types=["sweep.ended"],
    )

    def told() -> list[Any]:
        sent = deliveries.list_deliveries(api.parts.store, project, hook.id, limit=9).data
        return [json.loads(one.body)["data"] for one in reversed(sent)]

    sweep = started(api, at_once=3)
    feed(api, sweep["id"])
    for number, trial in enumerate(sweep["table"]["trials"]):
        assert told() == []
        end(api, trial["job_id"], gain=0.1 + number / 100, p_value=0.001)
    (ended,) = told()
    table = look(api, sweep["id"])
    score = table["trials"][2]["scores"][0]
    gain = {"reward": "colorfulness", **{name: score[name] for name in ("gain", "low", "high")}}
    assert table["best"] == 2
    assert ended["best"] == {
        "number": 2, "job_id": sweep["table"]["trials"][2]["job_id"], "checkpoint_id": None, "gain": gain,
    }  # fmt: skip
    uncertain = started(api, at_once=3)
    feed(api, uncertain["id"])
    for trial in uncertain["table"]["trials"]:
        end(api, trial["job_id"], gain=0.1, p_value=0.03)
    assert told()[1]["best"] is None


def test_a_report_of_another_form_keeps_no_sweep_from_ending(api: Api):
    hook = webhooks.create(
        api.parts.store, project_id=DEFAULT_PROJECT_ID, url="https://a.example", sealed_secret="s", most=9
    )
    sweep = started(api, at_once=3)
    feed(api, sweep["id"])
    for trial in sweep["table"]["trials"]:
        with api.parts.store.write() as session:
            old = {"attempt": 0, "report": {"form": "of old"}, "created_at": now(session)}
            session.add(Report(job_id=trial["job_id"], project_id=DEFAULT_PROJECT_ID, step=4, **old))
        attempt = api.claim(trial["job_id"])
        leases.finish(api.parts.store, trial["job_id"], attempt, "succeeded")
    sent = deliveries.list_deliveries(api.parts.store, DEFAULT_PROJECT_ID, hook.id, limit=99).data
    (ended,) = (one for one in map(json.loads, (one.body for one in sent)) if one["type"] == "sweep.ended")
    assert ended["data"]["best"] is None


def test_trials_of_different_sources_are_not_ranked(api: Api):
    sweep = started(api, at_once=3)
    for base, trial in zip((0.5, 0.5, 0.6), sweep["table"]["trials"], strict=True):
        end(api, trial["job_id"], gain=0.1, p_value=0.0001, base=base)
    feed(api, sweep["id"])
    table = look(api, sweep["id"])
    assert (table["is_over"], table["is_comparable"], table["best"]) == (True, False, None)
    assert table["source"] is None


def test_the_source_and_every_trial_have_an_interval_of_their_mean(api: Api):
    sweep = started(api, at_once=1)
    job_id = sweep["table"]["trials"][0]["job_id"]
    images = [
        {"prompt": prompt, "seed": seed, "base": {"colorfulness": base}, "policy": {"colorfulness": base + 0.1 * index}}
        for index, (prompt, base) in enumerate((("a", 0.4), ("b", 0.5), ("c", 0.9)))
        for seed in (0, 1)
    ]
    end(api, job_id, gain=0.1, p_value=0.5, images=images)
    table = look(api, sweep["id"])
    means = (0.4, 0.5, 0.9), (0.4, 0.6, 1.1)
    rows = table["source"]["scores"][0], table["trials"][0]["scores"][0]
    for found, own in zip(rows, means, strict=True):
        expected = stats.t.interval(0.95, 2, loc=np.mean(own), scale=stats.sem(own))
        interval = found["mean_interval"]
        assert (interval["low"], interval["high"]) == pytest.approx(expected), "prompts are the unit, not images"
        assert interval["confidence"] == 0.95


@pytest.mark.parametrize("degrees", [1, 2, 3, 5, 15, 127])
def test_the_quantile_of_students_t_is_that_of_scipy(degrees: int):
    for confidence in (0.8, 0.95, 0.99):
        exact = stats.t.ppf((1 + confidence) / 2, degrees)
        assert t_quantile((1 + confidence) / 2, degrees) == pytest.approx(exact, rel=0.01)


def test_a_sweep_is_deleted_once_it_is_over_and_its_jobs_stay(any_api: Api):
    api = any_api
    sweep = started(api)
    place = f"/v1/sweeps/{sweep['id']}"
    assert_problem(api.client.delete(place), 409, "sweep_in_use")
    job_id = sweep["table"]["trials"][0]["job_id"]
    attempt = api.claim(job_id)
    api.client.post(f"{place}/cancel")
    problem = assert_problem(api.client.delete(place), 409, "sweep_in_use")
    assert f"{job_id} have not ended" in problem["detail"]
    leases.finish(api.parts.store, job_id, attempt, "stopped")
    assert api.client.delete(place).json() == {"id": sweep["id"], "object": "sweep", "deleted": True}
    assert_problem(api.client.get(place), 404, "sweep_not_found")
    assert_problem(api.client.delete(place), 404, "sweep_not_found")
    assert api.client.get(f"/v1/jobs/{job_id}").json()["metadata"]["sweep"] == sweep["id"]


def test_a_trial_whose_sweep_was_deleted_while_it_was_being_queued_does_not_run(
    any_api: Api, monkeypatch: pytest.MonkeyPatch
):
    api, create = any_api, jobs.create
    sweep_id = kept(api)

    def late(*args: Any, **given: Any) -> Any:
        sweeps.request_cancel(api.parts.store, DEFAULT_PROJECT_ID, sweep_id)
        api.client.delete(f"/v1/sweeps/{sweep_id}")
        return create(*args, **given)

    monkeypatch.setattr(jobs, "create", late)
    feed(api, sweep_id)
    assert {one["status"] for one in api.client.get("/v1/jobs").json()["data"]} == {"cancelled"}


def test_a_trial_that_a_guard_ended_says_so(api: Api):
    sweep = started(api)
    job_id = sweep["table"]["trials"][0]["job_id"]
    end(api, job_id, gain=0.1, p_value=0.5, guard="reward_hacking")
    assert look(api, sweep["id"])["trials"][0]["stopped_by"] == "reward_hacking"


@pytest.mark.parametrize("dies", ["before", "after"])
def test_a_death_between_the_choice_of_an_id_and_the_job_costs_no_trial_and_makes_no_second_job(
    dies: str, api: Api, monkeypatch: pytest.MonkeyPatch
):
    create: Callable[..., Any] = jobs.create
    sweep_id = kept(api)

    def dying(*args: Any, **given: Any) -> Any:
        if dies == "after":
            create(*args, **given)
        raise OperationalError("INSERT", None, Exception("the process died here"))

    with monkeypatch.context() as patched:
        patched.setattr(jobs, "create", dying)
        with pytest.raises(OperationalError):
            feed(api, sweep_id)
    feed(api, sweep_id)
    assert [one["id"] for one in api.client.get("/v1/sweeps").json()["data"]] == [sweep_id]
    assert statuses(api, sweep_id) == ["queued", "queued", "waiting"]
    assert len(api.client.get("/v1/jobs").json()["data"]) == 2


def test_a_sweep_that_cannot_be_fed_when_it_is_created_is_answered_and_fed_later(
    api: Api, monkeypatch: pytest.MonkeyPatch
):
    """An error would have the client send it again, and there would be two."""

    def dying(*_: Any, **__: Any) -> Any:
        raise OperationalError("INSERT", None, Exception("the database is away"))

    body = body_of(api)
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "create", dying)
        made = [api.client.post("/v1/sweeps", json=body, headers={"Idempotency-Key": "once"}) for _ in range(2)]
    assert [one.status_code for one in made] == [201, 201]
    (sweep,) = api.client.get("/v1/sweeps").json()["data"]
    assert {one.json()["id"] for one in made} == {sweep["id"]}
    sweeps.feed_all(api.parts.store, api.parts.bell.ring)
    assert statuses(api, sweep["id"]) == ["queued", "queued", "waiting"]


def kept(api: Api) -> str:
    """A sweep of which nothing is queued yet."""
    base = api.spec_of(api.new_job()).model_dump(mode="json")
    (job,) = api.client.get("/v1/jobs").json()["data"]
    api.client.post(f"/v1/jobs/{job['id']}/cancel")
    api.client.delete(f"/v1/jobs/{job['id']}")
    queued = {"spec": base, "estimate": None, "card_gib": None, "needs": [], "needs_prompts": [], "name": None}
    trials = [({"seed": seed}, {**queued, "metadata": {}}) for seed in range(3)]
    return sweeps.create(
        api.parts.store, project_id=DEFAULT_PROJECT_ID, trials=trials, search={"type": "list"}, at_once=2
    ).id


def test_a_cancelled_sweep_queues_nothing_more(api: Api):
    sweep = started(api)
    answer = api.client.post(f"/v1/sweeps/{sweep['id']}/cancel")
    assert (answer.status_code, answer.json()["is_cancelled"]) == (202, True)
    feed(api, sweep["id"])
    assert statuses(api, sweep["id"]) == ["cancelled", "cancelled", "waiting"]
    assert look(api, sweep["id"])["is_over"]


def test_a_trial_that_was_being_queued_when_its_sweep_was_cancelled_does_not_run(
    any_api: Api, monkeypatch: pytest.MonkeyPatch
):
    api, create = any_api, jobs.create
    sweep_id = kept(api)

    def late(*args: Any, **given: Any) -> Any:
        sweeps.request_cancel(api.parts.store, DEFAULT_PROJECT_ID, sweep_id)
        return create(*args, **given)

    monkeypatch.setattr(jobs, "create", late)
    feed(api, sweep_id)
    assert statuses(api, sweep_id) == ["cancelled", "cancelled", "waiting"]


def test_a_job_that_ends_just_now_keeps_no_other_from_being_cancelled(api: Api, monkeypatch: pytest.MonkeyPatch):
    sweep, cancel = started(api), jobs.request_cancel
    first = sweep["table"]["trials"][0]["job_id"]

    def late(store: Any, project_id: str, job_id: str) -> Any:
        if job_id == first:
            end(api, first, gain=0.1, p_value=0.5)
        return cancel(store, project_id, job_id)

    monkeypatch.setattr(jobs, "request_cancel", late)
    assert api.client.post(f"/v1/sweeps/{sweep['id']}/cancel").status_code == 202
    assert statuses(api, sweep["id"]) == ["succeeded", "cancelled", "waiting"]


def test_a_sweep_that_cannot_be_fed_keeps_no_other_from_it(api: Api):
    broken, sound = kept(api), started(api, at_once=1)["id"]
    with api.parts.store.write() as session:
        session.execute(sa.update(SweepTrial).where(SweepTrial.sweep_id == broken).values(job={}))
    end(api, look(api, sound)["trials"][0]["job_id"], gain=0.1, p_value=0.5)
    sweeps.feed_all(api.parts.store, api.parts.bell.ring)
    assert statuses(api, sound) == ["succeeded", "queued", "waiting"]


def test_a_job_that_is_deleted_is_not_queued_again(api: Api):
    sweep = started(api, at_once=1)
    job_id = sweep["table"]["trials"][0]["job_id"]
    api.client.post(f"/v1/jobs/{job_id}/cancel")
    assert api.client.delete(f"/v1/jobs/{job_id}").status_code == 200
    feed(api, sweep["id"])
    assert statuses(api, sweep["id"]) == ["deleted", "queued", "waiting"]


def test_trials_that_would_fill_the_database_are_refused(api: Api, monkeypatch: pytest.MonkeyPatch):
    body = body_of(api, search={"type": "grid", "axes": {"seed": list(range(64))}})
    monkeypatch.setattr("service.api.sweeps.MOST_BYTES", 100_000)
    body["spec"]["evaluation"]["prompts"] = [f"prompt {number}" for number in range(200)]
    (problem,) = assert_problem(api.client.post("/v1/sweeps", json=body), 422, "invalid_request")["errors"]
    assert (problem["pointer"], problem["code"]) == ("/spec", "sweep_too_large")
    body["search"]["axes"]["seed"] = [1, 2]
    assert api.client.post("/v1/sweeps", json=body).status_code == 201
    assert api.client.get("/v1/sweeps").json()["data"][0]["num_trials"] == 2


def test_a_trial_that_cannot_be_is_refused_with_its_number_before_anything_is_queued(api: Api):
    for axes, said in (
        ({"training.learning_rates": [1e-4]}, "trial 0: the spec has no field training.learning_rates"),
        ({"training.steps": [4, -1]}, "trial 1: training.steps"),
        ({"evaluation.rewards.7.type": ["brightness"]}, "the spec has no field evaluation.rewards.7.type"),
        ({"evaluation.rewards.x.type": ["brightness"]}, "the spec has no field evaluation.rewards.x.type"),
        ({"training.steps": [4, "\0"]}, "NUL"),
    ):
        answer = api.client.post("/v1/sweeps", json=body_of(api, search={"type": "grid", "axes": axes}))
        assert answer.status_code == 422
        assert said in answer.json()["errors"][0]["message"]
    assert api.client.get("/v1/jobs").json()["data"] == []
    assert_problem(api.client.get(f"/v1/sweeps/swp_{'0' * 26}"), 404, "sweep_not_found")


def test_a_project_has_so_many_open_sweeps(new_api: NewApi):
    api = new_api(open_sweeps_per_project=1)
    first = started(api)
    assert_problem(api.client.post("/v1/sweeps", json=body_of(api)), 409, "too_many_sweeps")
    api.client.post(f"/v1/sweeps/{first['id']}/cancel")
    started(api)


def test_what_a_trial_to_come_needs_is_not_deleted(any_api: Api):
    """The first trial has ended, the second is a job; the third is only a row of the sweep."""
    api = any_api
    dataset_id = api.ready_dataset()
    sweep = started(api, spec=spec_for(dataset_id), at_once=1)
    end(api, sweep["table"]["trials"][0]["job_id"], gain=0.1, p_value=0.5)
    problem = assert_problem(api.client.delete(f"/v1/datasets/{dataset_id}"), 409, "dataset_in_use")
    assert f"{sweep['id']} need it; cancel them or let them end" in problem["detail"]
    assert has_live_jobs(api.parts.store, DEFAULT_PROJECT_ID, dataset_id)
    api.client.post(f"/v1/sweeps/{sweep['id']}/cancel")
    assert api.client.delete(f"/v1/datasets/{dataset_id}").status_code == 200


def test_a_checkpoint_that_trials_to_come_start_from_is_kept_until_their_sweep_is_cancelled(any_api: Api):
    api = any_api
    job_id = api.new_job()
    api.run(job_id)
    checkpoint_id = api.checkpoint_id(job_id)
    start = {"lora": {"type": "checkpoint", "id": checkpoint_id}}
    sweep = started(api, spec={**spec_for(api.ready_dataset()), "start": start}, at_once=1)
    for trial in sweep["table"]["trials"][:1]:
        end(api, trial["job_id"], gain=0.1, p_value=0.5)
    problem = assert_problem(api.client.delete(f"/v1/jobs/{job_id}"), 409, "job_in_use")
    assert f"{sweep['id']} begin from a checkpoint of it" in problem["detail"]
    place = f"/v1/checkpoints/{checkpoint_id}?even_result=true"
    assert_problem(api.client.delete(place), 409, "checkpoint_in_use")
    api.client.post(f"/v1/sweeps/{sweep['id']}/cancel")
    assert api.client.delete(place).status_code == 200


def test_a_data_set_that_goes_while_its_sweep_is_being_made_is_told_at_its_field(
    api: Api, monkeypatch: pytest.MonkeyPatch
):
    dataset_id, create = api.ready_dataset(), sweeps.create

    def late(*args: Any, **given: Any) -> Any:
        assert api.client.delete(f"/v1/datasets/{dataset_id}").status_code == 200
        return create(*args, **given)

    monkeypatch.setattr(sweeps, "create", late)
    answer = api.client.post("/v1/sweeps", json=body_of(api, spec=spec_for(dataset_id)))
    assert_problem(answer, 422, "invalid_request")
    assert dataset_id in answer.text
    assert api.client.get("/v1/sweeps").json()["data"] == []
