"""DELETE: what is gone is gone from everywhere, what is in use stays, what is another's is not there."""

import json
import threading

import pytest
import sqlalchemy as sa

from service.store import datasets, exports, jobs, leases, projects, removals
from service.store.models import Base, Removal
from service.store.objects import DirectoryStore
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from service.store.queueing import DatasetGone
from service.store.unavailable import ObjectsUnavailable
from tests.service.api.conftest import NewApi
from tests.service.api.test_auth import key_of
from tests.service.api.world import PARQUET, Api, assert_problem, spec_for


def delete(api: Api, path: str, status: int = 200) -> dict[str, object]:
    answer = api.client.delete(f"/v1/{path}")
    assert answer.status_code == status, answer.text
    return answer.json()


def keys_left(api: Api) -> list[str]:
    return [info.key for info in api.parts.objects.list("projects/")]


def rows_with(api: Api, *texts: str) -> dict[str, int]:
    """Rows of any table that hold one of the texts anywhere; what is yet to be removed and what was done are meant to name it."""
    found: dict[str, int] = {}
    with api.parts.store.read() as session:
        for table in Base.metadata.sorted_tables:
            rows = [json.dumps(list(row), default=str) for row in session.execute(sa.select(table))]
            if table.name not in ("removals", "audit") and (
                count := sum(any(text in row for text in texts) for row in rows)
            ):
                found[table.name] = count
    return found


def test_a_job_goes_with_all_that_it_left(any_api: Api):
    api = any_api
    answer = api.post_job(headers={"Idempotency-Key": "once"})
    job_id = answer.json()["id"]
    other = api.new_job()
    api.run(job_id)
    api.run(other)
    kept = [key for key in keys_left(api) if job_id not in key]
    assert len(rows_with(api, job_id)) == 10, "every table that speaks of jobs does"
    assert delete(api, f"jobs/{job_id}") == {"id": job_id, "object": "job", "deleted": True}
    assert rows_with(api, job_id) == {}
    assert keys_left(api) == kept
    for path in ("", "/events", "/report", "/checkpoints", "/logs"):
        assert_problem(api.client.get(f"/v1/jobs/{job_id}{path}"), 404, "job_not_found")
    assert_problem(api.client.delete(f"/v1/jobs/{job_id}"), 404, "job_not_found")
    assert api.client.get(f"/v1/jobs/{other}").json()["status"] == "succeeded"


def test_a_data_set_goes_with_its_file_its_report_and_its_remembered_answer(any_api: Api):
    api = any_api
    form = {"files": {"file": ("private.parquet", PARQUET)}, "headers": {"Idempotency-Key": "once"}}
    dataset_id = api.client.post("/v1/datasets", **form).json()["id"]
    assert delete(api, f"datasets/{dataset_id}")["object"] == "dataset"
    assert keys_left(api) == []
    assert rows_with(api, dataset_id, "private.parquet") == {}
    assert_problem(api.client.get(f"/v1/datasets/{dataset_id}"), 404, "dataset_not_found")
    again = api.client.post("/v1/datasets", **form)
    assert again.status_code == 201
    assert again.json()["id"] != dataset_id


def test_a_check_that_is_at_work_is_given_up(api: Api):
    dataset_id = api.client.post("/v1/datasets", files={"file": ("a.parquet", PARQUET)}).json()["id"]
    claim = datasets.claim(api.parts.store, dataset_id, "worker", 60)
    assert claim is not None
    delete(api, f"datasets/{dataset_id}")
    assert not datasets.renew(api.parts.store, dataset_id, claim.attempt, 60)


def test_a_data_set_stays_while_a_job_needs_it_and_goes_when_none_does(api: Api):
    dataset_id = api.ready_dataset()
    queued = api.new_job(spec=spec_for(dataset_id))
    for change in ("pause", "resume"):
        problem = assert_problem(api.client.delete(f"/v1/datasets/{dataset_id}"), 409, "dataset_in_use")
        assert queued in problem["detail"]
        api.client.post(f"/v1/jobs/{queued}/{change}")
    attempt = api.claim(queued)
    assert_problem(api.client.delete(f"/v1/datasets/{dataset_id}"), 409, "dataset_in_use")
    leases.finish(api.parts.store, queued, attempt, "succeeded")
    delete(api, f"datasets/{dataset_id}")
    assert api.client.get(f"/v1/jobs/{queued}").status_code == 200, "the job stays"


def test_an_upload_that_has_not_ended_is_in_use(api: Api):
    dataset = datasets.create(api.parts.store, project_id=PROJECT, filename="a.parquet")
    assert_problem(api.client.delete(f"/v1/datasets/{dataset.id}"), 409, "dataset_in_use")


def test_a_job_is_not_queued_on_a_data_set_that_was_deleted_meanwhile(api: Api):
    dataset_id = api.ready_dataset()
    spec = api.spec_of(api.new_job(spec=spec_for(dataset_id)))
    with pytest.raises(DatasetGone):
        jobs.create(api.parts.store, project_id=PROJECT, spec=spec, needs=[dataset_id, "ds_" + "0" * 26])


def test_a_job_that_has_not_ended_is_in_use(api: Api):
    job_id = api.new_job()
    assert_problem(api.client.delete(f"/v1/jobs/{job_id}"), 409, "job_in_use")
    attempt = api.claim(job_id)
    api.save_checkpoint(job_id, attempt, 2)
    checkpoint_id = api.checkpoint_id(job_id)
    assert_problem(api.client.delete(f"/v1/jobs/{job_id}"), 409, "job_in_use")
    assert_problem(api.client.delete(f"/v1/checkpoints/{checkpoint_id}"), 409, "checkpoint_in_use")


def test_a_checkpoint_goes_alone_and_the_result_only_when_that_is_said(any_api: Api):
    api = any_api
    job_id = api.new_job()
    attempt = api.claim(job_id)
    api.save_checkpoint(job_id, attempt, 2)
    api.save_checkpoint(job_id, attempt, 4)
    leases.finish(api.parts.store, job_id, attempt, "succeeded")
    first, last = (one["id"] for one in api.client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"])
    delete(api, f"checkpoints/{first}")
    assert [key for key in keys_left(api) if "/checkpoints/2/" in key] == []
    assert [key for key in keys_left(api) if "/checkpoints/4/" in key] != []
    assert_problem(api.client.delete(f"/v1/checkpoints/{last}"), 409, "checkpoint_is_result")
    delete(api, f"checkpoints/{last}?even_result=true")
    job = api.client.get(f"/v1/jobs/{job_id}").json()
    assert (job["latest_checkpoint_id"], job["result_checkpoint_id"]) == (None, None)
    assert [key for key in keys_left(api) if "/checkpoints/" in key] == []
    assert_problem(api.client.get(f"/v1/checkpoints/{first}"), 404, "checkpoint_not_found")


def test_exports_pictures_and_the_report_go_alone(any_api: Api):
    api = any_api
    job_id = api.new_job()
    api.run(job_id)
    checkpoint_id = api.checkpoint_id(job_id)
    api.client.post(f"/v1/checkpoints/{checkpoint_id}/exports", json={"format": "merged"})
    (sample,) = api.client.get(f"/v1/jobs/{job_id}/samples").json()["data"]
    before = set(keys_left(api))
    (export,) = api.client.get(f"/v1/checkpoints/{checkpoint_id}/exports").json()["data"]
    assert delete(api, f"checkpoints/{checkpoint_id}/exports/merged")["id"] == export["id"]
    assert delete(api, f"jobs/{job_id}/samples/{sample['id']}")["object"] == "sample"
    assert delete(api, f"jobs/{job_id}/report")["id"] == job_id
    assert api.client.get(f"/v1/checkpoints/{checkpoint_id}/exports").json()["data"] == []
    assert api.client.get(f"/v1/jobs/{job_id}/samples").json()["data"] == []
    assert_problem(api.client.get(f"/v1/jobs/{job_id}/report"), 404, "report_not_found")
    gone = {key.split("/")[4] for key in before - set(keys_left(api))}
    assert gone == {"samples", "reports"}
    for path, code in (
        (f"checkpoints/{checkpoint_id}/exports/merged", "export_not_found"),
        (f"jobs/{job_id}/samples/{sample['id']}", "sample_not_found"),
        (f"jobs/{job_id}/report", "report_not_found"),
    ):
        assert_problem(api.client.delete(f"/v1/{path}"), 404, code)


def test_what_a_worker_makes_just_now_is_in_use(api: Api):
    job_id = api.new_job()
    attempt = api.claim(job_id)
    api.save_checkpoint(job_id, attempt, 2)
    api.evaluate(job_id, attempt, 2)
    assert_problem(api.client.delete(f"/v1/jobs/{job_id}/report"), 409, "report_in_use")
    checkpoint_id = api.checkpoint_id(job_id)
    made = api.client.post(f"/v1/checkpoints/{checkpoint_id}/exports", json={"format": "merged"}).json()
    assert exports.claim(api.parts.store, made["id"], "worker", 60) is not None
    assert_problem(api.client.delete(f"/v1/checkpoints/{checkpoint_id}/exports/merged"), 409, "export_in_use")


def test_what_another_project_has_is_not_there(new_api: NewApi):
    api = new_api(api_keys_required=True)
    owner, _ = projects.create_key(api.parts.store, PROJECT, "owner")
    stranger_project = projects.create_project(api.parts.store, "stranger").id
    stranger, _ = projects.create_key(api.parts.store, stranger_project, "stranger")
    api.client.headers["Authorization"] = f"Bearer {owner}"
    dataset_id, job_id = api.ready_dataset(), api.new_job()
    api.run(job_id)
    paths = (f"datasets/{dataset_id}", f"jobs/{job_id}", f"checkpoints/{api.checkpoint_id(job_id)}")
    before = keys_left(api)
    for path in paths:
        answer = api.client.delete(f"/v1/{path}", headers={"Authorization": f"Bearer {stranger}"})
        assert answer.status_code == 404
    assert keys_left(api) == before
    for path in paths[:2]:
        delete(api, path)


def test_nobody_elses_words_keep_a_checkpoint(new_api: NewApi):
    """What is written in a prompt of another project is no use of it."""
    api = new_api(api_keys_required=True)
    own = projects.create_key(api.parts.store, projects.DEFAULT_PROJECT_ID, "k")[0]
    _, theirs = key_of(api, "other")
    api.client.headers["Authorization"] = f"Bearer {own}"
    job_id = api.new_job()
    api.run(job_id)
    checkpoint_id = api.checkpoint_id(job_id)
    contenders = [{"name": name, "model": "shapes"} for name in ("a", "b")]
    spec = {"contenders": contenders, "prompts": [checkpoint_id], "rewards": ["colorfulness"]}
    answer = api.client.post("/v1/evaluations", json={"spec": spec}, headers=theirs)
    assert answer.status_code == 201, answer.text
    api.client.put("/v1/retention", json={"ttl_days": 1e-9})
    assert api.client.get(f"/v1/jobs/{job_id}/retention").json()["checkpoints"][0]["goes"]
    deleted = api.client.delete(f"/v1/checkpoints/{checkpoint_id}", params={"even_result": True})
    assert deleted.status_code == 200, deleted.text


def test_objects_that_a_store_kept_while_it_was_away_are_removed_later(api: Api, monkeypatch: pytest.MonkeyPatch):
    dataset_id = api.ready_dataset()

    def away(*_: object) -> None:
        raise ObjectsUnavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryStore, "delete", away)
        delete(api, f"datasets/{dataset_id}")
        assert len(keys_left(api)) == 1
    assert removals.remove_due(api.parts.store, api.parts.objects) == 0, "a little later"
    make_due(api)
    assert removals.remove_due(api.parts.store, api.parts.objects) == 1
    assert keys_left(api) == []


def test_what_a_lost_worker_uploads_after_the_deletion_goes_a_day_later(api: Api, monkeypatch: pytest.MonkeyPatch):
    job_id = api.new_job()
    api.run(job_id)
    delete(api, f"jobs/{job_id}")
    api.parts.objects.put_bytes(f"projects/{PROJECT}/jobs/{job_id}/samples/9/attempt-1.png", b"late")
    monkeypatch.setattr(removals, "LOOK_AGAIN_SECONDS", 0.0)
    make_due(api)
    assert removals.remove_due(api.parts.store, api.parts.objects) == 1
    with api.parts.store.read() as session:
        assert session.scalars(sa.select(Removal)).all() == []


def make_due(api: Api) -> None:
    with api.parts.store.write() as session:
        session.execute(sa.update(Removal).values(due_at=Removal.created_at))


def test_two_that_delete_at_once_are_one_deletion(any_api: Api):
    api = any_api
    job_id = api.new_job()
    api.run(job_id)
    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(api.client.delete(f"/v1/jobs/{job_id}").status_code))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [200, 404, 404, 404]
