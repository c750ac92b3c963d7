"""Forks over HTTP: what a new job takes from a checkpoint, whose child it is, and what then cannot be deleted."""

import threading
from typing import Any

from service.store import ancestry, deletion, leases
from service.store.models import Job
from service.store.projects import DEFAULT_PROJECT_ID as PROJECT
from tests.service.api.world import Api, assert_problem


def trained(api: Api) -> tuple[str, str]:
    """A job that has ended, and its checkpoint."""
    job_id = api.new_job()
    api.run(job_id)
    return job_id, api.checkpoint_id(job_id)


def fork(api: Api, checkpoint_id: str, status: int = 201, **body: Any) -> dict[str, Any]:
    answer = api.client.post(f"/v1/checkpoints/{checkpoint_id}/fork", json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def test_a_resumed_fork_has_its_parents_spec_with_more_steps(any_api: Api):
    api = any_api
    job_id, checkpoint_id = trained(api)
    job = fork(api, checkpoint_id, mode="resume", steps=8, name="longer")
    parent = api.client.get(f"/v1/jobs/{job_id}").json()
    assert job["spec"] == {**parent["spec"], "training": {**parent["spec"]["training"], "steps": 8}}
    assert job["resume_from"] == {"checkpoint_id": checkpoint_id}
    expected = {"job_id": job_id, "checkpoint_id": checkpoint_id, "step": 4, "mode": "resume", "reference": None}
    assert (job["parent"], job["name"]) == (expected, "longer")
    claim = leases.claim(api.parts.store, job["id"], "w", 60)
    assert claim is not None
    assert claim.job.resume_from_checkpoint_id == checkpoint_id


def test_a_warm_start_says_what_it_is_held_to(any_api: Api):
    api = any_api
    _, checkpoint_id = trained(api)
    for reference, initial in (("base", "base"), ("checkpoint", "lora")):
        job = fork(api, checkpoint_id, mode="warm_start", reference=reference)
        assert job["parent"]["reference"] == reference
        assert job["spec"]["start"]["initial"] == initial
        assert job["spec"]["start"]["mode"] == "train"
        assert (job["resume_from"], job["progress"]["step"]) == (None, 0)


def test_a_full_fine_tune_is_its_own_reference(api: Api):
    job_id = api.new_job(spec={**api.spec_of(api.new_job()).model_dump(mode="json"), "adapter": {"type": "full"}})
    attempt = api.claim(job_id)
    api.save_checkpoint(job_id, attempt, 4, kind="full")
    leases.finish(api.parts.store, job_id, attempt, "succeeded")
    checkpoint_id = api.checkpoint_id(job_id)
    refused = fork(api, checkpoint_id, 422, mode="warm_start", reference="base")
    assert refused["errors"][0]["code"] == "reference_unavailable"
    job = fork(api, checkpoint_id, mode="warm_start", reference="checkpoint")
    assert job["spec"]["model"] == {"type": "checkpoint", "id": checkpoint_id}
    assert job["parent"]["reference"] == "checkpoint"


def test_a_fork_that_cannot_be_is_refused_with_the_field_to_change(api: Api):
    _, checkpoint_id = trained(api)
    refused = fork(api, checkpoint_id, 422, mode="resume", steps=4)
    assert [(one["pointer"], one["code"]) for one in refused["errors"]] == [("/steps", "nothing_left_to_train")]
    spec = {**api.spec_of(api.new_job()).model_dump(mode="json"), "start": {"lora": checkpoint_id}}
    refused = fork(api, checkpoint_id, 422, mode="warm_start", reference="base", spec=spec)
    assert refused["errors"][0]["pointer"] == "/spec/start"
    unknown = api.client.post(f"/v1/checkpoints/ckpt_{'0' * 26}/fork", json={"mode": "resume", "steps": 8})
    assert_problem(unknown, 404, "checkpoint_not_found")


def test_ancestry_goes_from_a_fork_to_the_first_job_and_to_the_children(any_api: Api):
    api = any_api
    first, checkpoint_id = trained(api)
    second = fork(api, checkpoint_id, mode="resume", steps=8)["id"]
    api.run(second, steps=8)
    third = fork(api, api.checkpoint_id(second), mode="warm_start", reference="base")["id"]
    found = api.client.get(f"/v1/jobs/{third}/ancestry").json()
    assert [one["job_id"] for one in found["ancestors"]] == [second, first]
    assert found["children"] == []
    of_first = api.client.get(f"/v1/jobs/{first}/ancestry").json()
    assert [(one["job_id"], one["status"]) for one in of_first["children"]] == [(second, "succeeded")]
    assert api.client.delete(f"/v1/jobs/{second}").status_code == 409, "the third stands on it"


def test_what_a_fork_stands_on_stays_until_the_fork_has_ended(api: Api):
    job_id, checkpoint_id = trained(api)
    child = fork(api, checkpoint_id, mode="warm_start", reference="checkpoint")["id"]
    assert_problem(api.client.delete(f"/v1/jobs/{job_id}"), 409, "job_in_use")
    assert_problem(api.client.delete(f"/v1/checkpoints/{checkpoint_id}?even_result=true"), 409, "checkpoint_in_use")
    api.client.post(f"/v1/jobs/{child}/cancel")
    assert api.client.delete(f"/v1/jobs/{job_id}").status_code == 200
    assert api.client.get(f"/v1/jobs/{child}").json()["parent"]["job_id"] == job_id, "it says still where it came from"
    assert api.client.get(f"/v1/jobs/{child}/ancestry").json()["ancestors"][0]["job_id"] == job_id


def test_a_deletion_waits_for_a_fork_that_is_being_made(any_api: Api):
    """Without the lock the fork would be queued on a checkpoint that has just gone."""
    api = any_api
    _, checkpoint_id = trained(api)
    other = api.new_job()
    refused: list[Exception] = []

    def delete() -> None:
        try:
            deletion.delete_checkpoint(api.parts.store, PROJECT, checkpoint_id, even_result=True)
        except deletion.InUse as error:
            refused.append(error)

    thread = threading.Thread(target=delete)
    with api.parts.store.write() as session:
        beginning = ancestry.Beginning(checkpoint_id, "resume", None)
        columns = ancestry.held_parent(session, PROJECT, beginning)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        row = session.get_one(Job, other)
        row.resume_from_checkpoint_id = columns["parent_checkpoint_id"]
    thread.join(20)
    assert refused
