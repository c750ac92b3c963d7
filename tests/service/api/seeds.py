"""One of everything that the API shows, finished and full, with its id under the name that paths have for it."""

import itertools

from service.settings import Settings
from service.store import projects, pushes
from service.store.projects import DEFAULT_PROJECT_ID
from tests.service.api import test_evaluations, test_exports, test_labelings, test_sweeps
from tests.service.api.browsable import browsable
from tests.service.api.world import CATALOG, Api, bearer

SETTINGS = {"catalog_path": CATALOG, "api_keys_required": True, "hub_namespaces": ("our-team",), "playground": True}
COMMIT = "c" * 40


def settings_in(data_dir: object) -> Settings:
    """Of a service in which everything can be asked for."""
    return Settings.model_validate({"data_dir": data_dir, **SETTINGS})


def sow(api: Api) -> dict[str, object]:
    """The client has to be one of the scope `admin`."""
    client, store = api.client, api.parts.store
    job_id = api.new_job()
    api.run(job_id)
    checkpoint_id = api.checkpoint_id(job_id)
    (sample,) = client.get(f"/v1/jobs/{job_id}/samples").json()["data"]
    promotion = client.post("/v1/promotions", json={"checkpoint_id": checkpoint_id}).json()
    webhook = client.post("/v1/webhooks", json={"url": "https://hooks.example.org/attune"}).json()
    prompts = client.post("/v1/prompt_sets", files={"file": ("p.txt", b"a red circle")}).json()
    session = client.post("/v1/sessions", headers=bearer(api)).json()
    client.cookies.clear()
    evaluation_id, picture_id = evaluation(api)
    candidates_id = test_labelings.candidates_of(api)
    client.post(f"/v1/checkpoints/{checkpoint_id}/exports", json={"format": "merged"})
    test_exports.make(api, checkpoint_id, "merged", {"manifest.json": b"{}", "README.md": test_exports.CARD})
    return {
        "job_id": job_id,
        "checkpoint_id": checkpoint_id,
        "dataset_id": browsable(api),
        "row": 1,
        "side": "chosen",
        "weights_id": api.ready_weights(),
        "sample_id": sample["id"],
        "key_id": projects.create_key(store, DEFAULT_PROJECT_ID, "to rotate")[1].id,
        "prompt_set_id": prompts["id"],
        "upload_id": client.post(
            "/v1/uploads", json={"purpose": "prompt_set", "filename": "p.txt", "size_bytes": 9}
        ).json()["id"],
        "promotion_id": promotion["id"],
        "alias": "champion",
        "webhook_id": webhook["id"],
        "delivery_id": client.post(f"/v1/webhooks/{webhook['id']}/test").json()["id"],
        "session_id": session["id"],
        "format": "merged",
        "path": "manifest.json",
        "push_id": push(api, checkpoint_id),
        "evaluation_id": evaluation_id,
        "picture_id": picture_id,
        "sweep_id": sweep(api),
        "candidates_id": candidates_id,
        "image_id": client.get(f"/v1/candidates/{candidates_id}/images").json()["first_id"],
        "labeling_id": labeling(api, candidates_id, job_id),
        "question": 0,
    }


def evaluation(api: Api) -> tuple[str, str]:
    """Ids of an evaluation that has a report, scores and a verification, and of its picture."""
    evaluation_id = test_evaluations.created(api)["id"]
    test_evaluations.run(api, evaluation_id)
    place = f"/v1/evaluations/{evaluation_id}"
    verification_id = api.client.post(f"{place}/verify", json={"num_prompts": 1}).json()["id"]
    test_evaluations.verified(api, verification_id, api.claim(verification_id))
    (picture,) = api.client.get(f"{place}/pictures").json()["data"]
    return evaluation_id, picture["id"]


def sweep(api: Api) -> str:
    """Id of a sweep that has ended and names its best trial."""
    made = test_sweeps.started(api, at_once=3)
    for number, trial in enumerate(made["table"]["trials"]):
        test_sweeps.end(api, trial["job_id"], gain=0.1 + number / 100, p_value=0.001)
    test_sweeps.feed(api, made["id"])
    return made["id"]


def labeling(api: Api, candidates_id: str, report_of: str) -> str:
    """Id of a blind comparison in which somebody has answered all questions."""
    body = {"between": ["base", "aligned"], "report_of": report_of}
    labeling_id = test_labelings.created(api, candidates_id, **body)
    place = f"/v1/labelings/{labeling_id}"
    questions = api.client.get(f"{place}/next", params={"limit": 20}).json()["data"]
    for one, choice in zip(questions, itertools.cycle(("left", "right", "tie", "both_bad"))):
        answer = api.client.put(f"{place}/votes/{one['question']}", json={"choice": choice})
        assert answer.status_code == 200, answer.text
    return labeling_id


def push(api: Api, checkpoint_id: str) -> str:
    """Id of a push that has reached its repository."""
    body = {"repo_id": "our-team/shapes"}
    push_id = api.client.post(f"/v1/checkpoints/{checkpoint_id}/pushes", json=body).json()["id"]
    claim = pushes.claim(api.parts.store, push_id, "worker", 60)
    assert claim is not None
    pushes.finish(api.parts.store, claim.id, claim.attempt, COMMIT, f"https://hub.example.org/commit/{COMMIT}")
    return push_id
