"""Retention: what goes is what was said beforehand, what is needed stays, and objects follow their rows."""

import os
from datetime import timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from service.settings import Settings
from service.store import leases, orphans, retention
from service.store.__main__ import main
from service.store.database import now
from service.store.models import Checkpoint, Export, Job, Removal, Sweep, SweepTrial
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.records.base import JobError
from service.store.removals import remove_due
from service.store.states import JobState
from tests.service.api.conftest import NewApi
from tests.service.api.world import Api, assert_problem, spec_for

STEPS = (1, 2, 3, 4)
NO_GRACE = timedelta(seconds=-2)  # S3 rounds its times to a second


def ended_job(api: Api, steps: tuple[int, ...] = STEPS, end: JobState = "succeeded") -> str:
    job_id = api.new_job()
    attempt = api.claim(job_id)
    for step in steps:
        api.save_checkpoint(job_id, attempt, step)
    if end == "succeeded":
        leases.finish(api.parts.store, job_id, attempt, "succeeded")
    return job_id


def steps_of(api: Api, job_id: str) -> list[int]:
    return [one["step"] for one in api.client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]]


def checkpoint_at(api: Api, job_id: str, step: int) -> str:
    found = api.client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]
    return next(one["id"] for one in found if one["step"] == step)


def test_what_goes_is_what_was_shown_before_and_its_objects_follow(any_api: Api):
    api = any_api
    job_id = ended_job(api)
    assert api.client.put("/v1/retention", json={"keep_last": 1}).status_code == 200
    pinned = checkpoint_at(api, job_id, 2)
    assert api.client.post(f"/v1/checkpoints/{pinned}/pin").json()["is_pinned"] is True
    shown = api.client.get(f"/v1/jobs/{job_id}/retention").json()
    assert not shown["is_own"]
    assert [(one["goes"], one["reason"]) for one in shown["checkpoints"]] == [
        (True, "behind_keep_last"),
        (False, "pinned"),
        (True, "behind_keep_last"),
        (False, "result"),
    ]
    assert retention.sweep(api.parts.store) == 2
    assert steps_of(api, job_id) == [2, 4]
    remove_due(api.parts.store, api.parts.objects)
    left = {info.key.split("/")[5] for info in api.parts.objects.list(f"projects/{PROJECT}/jobs/{job_id}/checkpoints/")}
    assert left == {"2", "4"}
    (entry,) = api.client.get("/v1/audit", params={"action": "retention"}).json()["data"]
    assert (entry["object_ids"][0], len(entry["object_ids"])) == (job_id, 3)
    assert retention.sweep(api.parts.store) == 0


def test_a_jobs_own_policy_comes_before_the_projects(api: Api):
    kept, cut = ended_job(api), ended_job(api)
    api.client.put("/v1/retention", json={"keep_last": 1})
    own = api.client.put(f"/v1/jobs/{kept}/retention", json={}).json()
    assert (own["is_own"], {one["reason"] for one in own["checkpoints"]}) == (True, {"no_policy"})
    retention.sweep(api.parts.store)
    assert (steps_of(api, kept), steps_of(api, cut)) == ([1, 2, 3, 4], [4])
    assert api.client.delete(f"/v1/jobs/{kept}/retention").json()["is_own"] is False
    retention.sweep(api.parts.store)
    assert steps_of(api, kept) == [4]


def test_old_checkpoints_go_the_result_too_and_young_ones_stay(api: Api):
    job_id, young = ended_job(api), ended_job(api)
    with api.parts.store.write() as session:
        old = now(session) - timedelta(days=8)
        session.execute(sa.update(Checkpoint).where(Checkpoint.job_id == job_id).values(created_at=old))
    api.client.put("/v1/retention", json={"ttl_days": 7})
    assert retention.sweep(api.parts.store) == 4
    assert (steps_of(api, job_id), steps_of(api, young)) == ([], [1, 2, 3, 4])
    job = api.client.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["latest_checkpoint_id"]) == ("succeeded", None)


def test_a_job_brings_its_own_policy(api: Api):
    policy = {"keep_last": 1, "keep_best": False, "ttl_days": None, "unfinished_days": 3.5}
    job_id = api.new_job(retention=policy)
    attempt = api.claim(job_id)
    for step in STEPS:
        api.save_checkpoint(job_id, attempt, step)
    leases.finish(api.parts.store, job_id, attempt, "succeeded")
    shown = api.client.get(f"/v1/jobs/{job_id}/retention").json()
    assert (shown["is_own"], shown["policy"]) == (True, policy)
    assert retention.sweep(api.parts.store) == 3
    assert steps_of(api, job_id) == [4]
    assert_problem(api.post_job(retention={"keep": 1}), 422, "invalid_request")


def spec_of(api: Api, every: int = 2, steps: int = 5) -> dict[str, Any]:
    return {**spec_for(api.ready_dataset(), steps=steps), "checkpoints": {"every": every}}


def test_what_a_job_has_pinned_is_pinned_as_it_is_saved_and_stays_unpinned_once_it_was(any_api: Api):
    api = any_api
    job_id = api.new_job(spec=spec_of(api), pins={"steps": [4, 2, 2], "result": True}, retention={"keep_last": 0})
    assert api.client.get(f"/v1/jobs/{job_id}/retention").json()["pins"] == {"steps": [2, 4], "result": True}
    attempt = api.claim(job_id)
    for step in (1, 2, 4):
        api.save_checkpoint(job_id, attempt, step)
    pinned = {one["step"]: one["is_pinned"] for one in api.client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]}
    assert pinned == {1: False, 2: True, 4: True}
    unpinned = checkpoint_at(api, job_id, 2)
    api.client.post(f"/v1/checkpoints/{unpinned}/unpin")
    api.save_checkpoint(job_id, attempt, 2)
    api.save_checkpoint(job_id, attempt, 5, result_step=5)
    leases.finish(api.parts.store, job_id, attempt, "succeeded")
    assert retention.sweep(api.parts.store) == 2
    assert steps_of(api, job_id) == [4, 5]
    result = checkpoint_at(api, job_id, 5)
    answer = api.client.delete(f"/v1/checkpoints/{result}", params={"even_result": True})
    assert_problem(answer, 409, "checkpoint_pinned")
    assert_problem(api.client.delete(f"/v1/jobs/{job_id}"), 409, "job_has_pinned")


def test_steps_at_which_no_checkpoint_is_saved_cannot_be_pinned(api: Api):
    body: dict[str, Any] = {"spec": spec_of(api), "pins": {"steps": [2, 3, 5, 6]}}
    problem = assert_problem(api.client.post("/v1/jobs", json=body), 422, "invalid_request")
    told = [(one["pointer"], one["code"]) for one in problem["errors"]]
    assert told == [("/pins/steps/1", "no_checkpoint_at_step"), ("/pins/steps/3", "no_checkpoint_at_step")]
    assert (
        problem["errors"][0]["message"] == "no checkpoint is saved at step 3: one is every 2 steps and at the last, 5"
    )
    checked = api.client.post("/v1/jobs/validate", json=body).json()
    assert (checked["valid"], len(checked["errors"])) == (False, 2)
    for wrong in ({"steps": [0]}, {"steps": [True]}, {"step": 2}, {"result": 1}, []):
        assert_problem(api.client.post("/v1/jobs", json={**body, "pins": wrong}), 422, "invalid_request")
    assert api.client.get("/v1/jobs").json()["data"] == []


def test_steps_before_the_checkpoint_that_a_job_begins_from_cannot_be_pinned(api: Api):
    spec = spec_of(api)
    job_id = api.new_job(spec=spec)
    api.save_checkpoint(job_id, api.claim(job_id), 4)
    longer = {**spec, "training": {**spec["training"], "steps": 8}}
    begin = {"checkpoint_id": checkpoint_at(api, job_id, 4)}
    body: dict[str, Any] = {"spec": longer, "resume_from": begin, "pins": {"steps": [2, 4, 6, 8]}}
    problem = assert_problem(api.client.post("/v1/jobs", json=body), 422, "invalid_request")
    told = [(one["pointer"], one["code"]) for one in problem["errors"]]
    assert told == [("/pins/steps/0", "no_checkpoint_at_step"), ("/pins/steps/1", "no_checkpoint_at_step")]
    assert problem["errors"][0]["message"] == "no checkpoint is saved at step 2: the job begins from step 4"
    assert api.client.post("/v1/jobs/validate", json=body).json()["errors"] == problem["errors"]
    assert api.client.post("/v1/jobs", json={**body, "pins": {"steps": [6, 8]}}).status_code == 201


def test_what_a_failed_or_cancelled_job_left_goes_after_its_time(any_api: Api):
    api = any_api
    failed, cancelled, fine = ended_job(api, end="running"), ended_job(api, end="running"), ended_job(api)
    error = JobError(code="worker_lost", message="lost", category="capacity", retryable=True)
    leases.finish(api.parts.store, failed, 1, "failed", error)
    api.client.post(f"/v1/jobs/{cancelled}/cancel")
    leases.finish(api.parts.store, cancelled, 1, "stopped")
    api.client.put("/v1/retention", json={"unfinished_days": 7})
    assert retention.sweep(api.parts.store) == 0, "they are young, and the failed one may be resumed"
    reasons = {one["reason"] for one in api.client.get(f"/v1/jobs/{failed}/retention").json()["checkpoints"]}
    assert reasons == {"job_may_resume"}
    kept = checkpoint_at(api, cancelled, 2)
    api.client.post(f"/v1/checkpoints/{kept}/pin")
    with api.parts.store.write() as session:
        old = now(session) - timedelta(days=8)
        session.execute(sa.update(Job).where(Job.id.in_([failed, cancelled, fine])).values(finished_at=old))
    assert retention.sweep(api.parts.store) == 7
    assert (steps_of(api, failed), steps_of(api, cancelled), steps_of(api, fine)) == ([], [2], [1, 2, 3, 4])


def test_what_a_fork_stands_on_and_what_a_job_goes_on_from_stay(any_api: Api):
    api = any_api
    api.client.put("/v1/retention", json={"keep_last": 0, "keep_best": False, "ttl_days": 0.0000001})
    running, parent = ended_job(api, end="running"), ended_job(api)
    stem = checkpoint_at(api, parent, 2)
    fork = api.client.post(f"/v1/checkpoints/{stem}/fork", json={"mode": "resume", "steps": 9})
    assert fork.status_code == 201, fork.text
    assert "ratelimit" not in fork.headers, "there is no limit"
    retention.sweep(api.parts.store)
    assert steps_of(api, running) == [1, 2, 3, 4]
    assert steps_of(api, parent) == [2]
    api.client.post(f"/v1/jobs/{fork.json()['id']}/cancel")
    retention.sweep(api.parts.store)
    assert steps_of(api, parent) == [2], "the fork that has ended still says where it comes from"


def test_what_a_name_points_at_stays_until_the_name_is_taken_away(api: Api):
    api.client.put("/v1/retention", json={"keep_last": 1, "keep_best": False})
    job_id = ended_job(api)
    body = {"checkpoint_id": checkpoint_at(api, job_id, 2), "alias": "candidate"}
    assert api.client.post("/v1/promotions", json=body).status_code == 201
    told = api.client.get(f"/v1/jobs/{job_id}/retention").json()["checkpoints"]
    assert [one["reason"] for one in told if one["id"] == body["checkpoint_id"]] == ["champion"]
    retention.sweep(api.parts.store)
    assert steps_of(api, job_id) == [2, 4]
    api.client.delete("/v1/aliases/candidate")
    retention.sweep(api.parts.store)
    assert steps_of(api, job_id) == [4]


def test_what_a_sweep_is_yet_to_begin_from_stays(api: Api):
    parent = ended_job(api)
    stem = checkpoint_at(api, parent, 2)
    api.client.put("/v1/retention", json={"keep_last": 1})
    with api.parts.store.write() as session:
        row = Sweep(id="swp_1", project_id=PROJECT, name=None, labels={}, search={}, at_once=1, num_trials=1)
        row.is_open, row.is_cancelled, row.created_at = True, False, now(session)
        session.add(row)
        session.flush()
        trial = SweepTrial(sweep_id="swp_1", number=0, project_id=PROJECT, point={}, job={"spec": {"model": stem}})
        trial.is_created = False
        session.add(trial)
    retention.sweep(api.parts.store)
    assert steps_of(api, parent) == [2, 4]
    with api.parts.store.write() as session:
        session.execute(sa.update(SweepTrial).values(is_created=True))
    retention.sweep(api.parts.store)
    assert steps_of(api, parent) == [4]


def test_a_pinned_checkpoint_is_not_deleted_by_hand_and_neither_is_its_job(api: Api):
    job_id = ended_job(api)
    checkpoint_id = checkpoint_at(api, job_id, 1)
    api.client.post(f"/v1/checkpoints/{checkpoint_id}/pin")
    assert_problem(api.client.delete(f"/v1/checkpoints/{checkpoint_id}"), 409, "checkpoint_pinned")
    assert_problem(api.client.delete(f"/v1/jobs/{job_id}"), 409, "job_has_pinned")
    assert api.client.post(f"/v1/checkpoints/{checkpoint_id}/unpin").json()["is_pinned"] is False
    assert api.client.delete(f"/v1/jobs/{job_id}").status_code == 200


def test_a_policy_of_the_project_asks_for_an_admin_and_is_checked(api: Api):
    for wrong in ({"keep_last": -1}, {"ttl_days": 0}, {"keep": 3}):
        assert_problem(api.client.put("/v1/retention", json=wrong), 422, "invalid_request")
    document = api.client.get("/openapi.json").json()["paths"]
    assert document["/v1/retention"]["put"]["security"][0] == {"ApiKey": ["admin"]}
    assert document["/v1/retention"]["get"]["security"][0] == {"ApiKey": ["read"]}


# --- objects that belong to nobody ---------------------------------------------------------------------------------


def test_orphans_are_found_and_everything_that_is_needed_stays(any_api: Api):
    api = any_api
    store, objects = api.parts.store, api.parts.objects
    finished, running = api.new_job(), ended_job(api, end="running")
    api.run(finished)
    before = {info.key for info in objects.list("projects/")}
    assert list(orphans.find(store, objects, NO_GRACE)) == []
    gone = f"projects/{PROJECT}/jobs/job_{'0' * 26}/samples/1/attempt-1.png"
    superseded = f"projects/{PROJECT}/jobs/{finished}/checkpoints/4/attempt-7/weights.safetensors"
    of_nobody = f"projects/{PROJECT}/datasets/ds_{'0' * 26}/data.parquet"
    on_its_way = f"projects/{PROJECT}/jobs/{running}/checkpoints/9/attempt-1/weights.safetensors"
    unknown = f"projects/{PROJECT}/later/{'0' * 26}/thing"
    for key in (gone, superseded, of_nobody, on_its_way, unknown):
        objects.put_bytes(key, b"12345")
    assert list(orphans.find(store, objects, timedelta(hours=1))) == [], "uploads come before their rows"
    found = {one.key: one.reason for one in orphans.find(store, objects, NO_GRACE)}
    assert found == {gone: "owner_is_gone", of_nobody: "owner_is_gone", superseded: "superseded"}
    assert orphans.remove(store, objects, NO_GRACE) == (3, 15)
    assert {info.key for info in objects.list("projects/")} == before | {on_its_way, unknown}


def test_an_export_that_is_being_made_is_no_orphan_and_one_that_was_superseded_is(api: Api):
    job_id = ended_job(api, (4,))
    checkpoint_id = checkpoint_at(api, job_id, 4)
    export_id = api.client.post(f"/v1/checkpoints/{checkpoint_id}/exports", json={"format": "merged"}).json()["id"]
    key = f"projects/{PROJECT}/jobs/{job_id}/exports/{checkpoint_id}/{export_id}/attempt-1/model.safetensors"
    api.parts.objects.put_bytes(key, b"merged")
    assert list(orphans.find(api.parts.store, api.parts.objects, NO_GRACE)) == []
    with api.parts.store.write() as session:
        session.execute(sa.update(Export).values(state="failed"))
    assert [one.key for one in orphans.find(api.parts.store, api.parts.objects, NO_GRACE)] == [key]


def test_what_a_later_attempt_stores_anew_takes_the_earlier_ones_place(api: Api):
    job_id = api.new_job()
    for _ in "ab":
        attempt = api.claim(job_id)
        api.save_checkpoint(job_id, attempt, 2)
        api.draw_sample(job_id, attempt, 2)
        api.evaluate(job_id, attempt, 2)
        leases.give_back(api.parts.store, job_id, attempt)
    with api.parts.store.read() as session:
        rows = session.scalars(sa.select(Removal)).all()
        assert all(row.due_at - row.created_at == timedelta(days=1) for row in rows), "who reads it has time to end"
    with api.parts.store.write() as session:
        session.execute(sa.update(Removal).values(due_at=Removal.created_at))
    remove_due(api.parts.store, api.parts.objects)
    left = [info.key for info in api.parts.objects.list(f"projects/{PROJECT}/jobs/{job_id}/")]
    assert left
    assert not [key for key in left if "attempt-1" in key]
    (checkpoint,) = api.client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]
    assert api.client.get(f"/v1/checkpoints/{checkpoint['id']}/download").status_code == 200


def test_the_owners_command_shows_orphans_before_it_removes_them(
    new_api: NewApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    api = new_api()
    monkeypatch.setenv("ATTUNE_DATA_DIR", str(api.parts.settings.data_dir))
    key = f"projects/{PROJECT}/datasets/ds_{'0' * 26}/data.parquet"
    api.parts.objects.put_bytes(key, b"12345")
    assert main(["orphans", "--dry-run"]) == 0
    assert capsys.readouterr().out == "", "too young"
    _make_old(api, key)
    assert main(["orphans", "--dry-run"]) == 0
    assert capsys.readouterr().out.split() == ["owner_is_gone", "5", key]
    assert api.parts.objects.head(key).size_bytes == 5
    assert main(["orphans"]) == 0
    assert list(api.parts.objects.list("projects/")) == []


def _make_old(api: Api, key: str) -> None:
    path = api.parts.settings.objects_dir / "data" / key
    os.utime(path, (0, 0))


def test_the_whole_store_is_only_listed_where_the_operator_wants_it():
    assert Settings().orphans_every_hours is None
