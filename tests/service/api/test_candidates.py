"""Candidates over HTTP: what is taken and refused, what is shown of each image, who sees it, and the playground."""

import hashlib
from typing import Any

import pytest

from alignment_core.events import CandidatesDrawn, CandidatesStarted, DrawnImage, RunCompleted
from alignment_core.spec import CandidatesSpec
from service.api.schemas.candidate_examples import RECIPE_EXAMPLE
from service.store import candidates, events, jobs, keys, leases, waiting
from service.store.projects import DEFAULT_PROJECT_ID
from tests.service.api.conftest import NewApi
from tests.service.api.test_auth import key_of
from tests.service.api.world import PNG, Api, assert_problem

SPEC: dict[str, Any] = {
    "contenders": [{"name": "base", "model": "shapes"}, {"name": "aligned", "model": "shapes"}],
    "prompts": ["a big red circle", "a small blue star"],
    "seeds_per_prompt": 2,
}


def created(api: Api, **changes: Any) -> dict[str, Any]:
    answer = api.client.post("/v1/candidates", json={"spec": {**SPEC, **changes}, "metadata": {"team": "design"}})
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/candidates/{answer.json()['id']}"
    return answer.json()


def drawn(api: Api, candidates_id: str, project_id: str = DEFAULT_PROJECT_ID) -> None:
    """Their whole life, with every image that they leave: PNGs that differ."""
    row = jobs.get(api.parts.store, project_id, candidates_id)
    assert row is not None
    spec = CandidatesSpec.model_validate(row.spec)
    attempt = api.claim(candidates_id)
    total = spec.num_images or 0
    start = CandidatesStarted(
        spec_sha256=spec.sha256(), num_images=total, num_there=0, device="cpu", card="a", precision="fp32", versions={}
    )
    api.say(candidates_id, attempt, start)
    assert isinstance(spec.prompts, tuple)
    for number, contender in enumerate(spec.contenders):
        images, files = [], []
        for position, prompt in enumerate(spec.prompts):
            for seed in range(spec.num_seeds):
                path = f"{contender.name}/{position:05d}-{seed:02d}.png"
                content = PNG + path.encode()
                key = keys.candidate_key(project_id, candidates_id, path, attempt)
                files.append(api.keep(path, key, content))
                images.append(
                    DrawnImage(
                        path=path,
                        position=position,
                        number=seed,
                        prompt=prompt,
                        seed=1000 * position + seed,
                        width=32,
                        height=32,
                        pixels_sha256=hashlib.sha256(content).hexdigest(),
                        fingerprint=hashlib.sha256(f"{prompt}{seed}{contender.name}".encode()).hexdigest(),
                    )
                )
        recipe = {**RECIPE_EXAMPLE, "contender": {**RECIPE_EXAMPLE["contender"], "name": contender.name}}
        done = (number + 1) * total // len(spec.contenders)
        event = CandidatesDrawn(contender=contender.name, recipe=recipe, images=images, done=done, total=total)
        events.record_event(api.parts.store, candidates_id, attempt, event, files)
    api.say(candidates_id, attempt, RunCompleted(step=total))
    leases.finish(api.parts.store, candidates_id, attempt, "succeeded")


def test_candidates_wait_in_the_queue_and_are_no_job(any_api: Api) -> None:
    api = any_api
    job_id, found = api.new_job(), created(api)
    assert found["id"].startswith("cand_")
    assert (found["status"], found["queue"]["position"]) == ("queued", 2)
    assert found["progress"] == {"done": 0, "total": 8, "percent": 0.0}
    assert waiting.next_jobs(api.parts.store, 5) == (job_id, found["id"])
    listed = api.client.get("/v1/candidates", params={"metadata[team]": "design", "status": "queued"}).json()["data"]
    assert [one["id"] for one in listed] == [found["id"]]
    assert "spec" not in listed[0]
    assert [one["id"] for one in api.client.get("/v1/jobs").json()["data"]] == [job_id]
    assert_problem(api.client.get(f"/v1/jobs/{found['id']}"), 404, "job_not_found")
    assert_problem(api.client.get(f"/v1/candidates/{job_id}"), 404, "candidates_not_found")


def test_every_image_says_what_it_follows_from(any_api: Api) -> None:
    api = any_api
    place = f"/v1/candidates/{created(api)['id']}"
    drawn(api, place.rpartition("/")[2])
    found = api.client.get(place).json()
    assert (found["status"], found["progress"]["done"]) == ("succeeded", 8)
    page = api.client.get(f"{place}/images", params={"limit": 3}).json()
    rest = api.client.get(f"{place}/images", params={"after": page["last_id"], "limit": 100}).json()["data"]
    images = page["data"] + rest
    assert [(one["contender"], one["position"], one["number"]) for one in images] == [
        (name, position, seed) for name in ("base", "aligned") for position in (0, 1) for seed in (0, 1)
    ]
    first = images[0]
    assert (first["prompt"], first["seed"]) == ("a big red circle", 0)
    assert first["recipe"] == RECIPE_EXAMPLE
    assert api.download(first["image_url"]) == PNG + b"base/00000-00.png"
    only = api.client.get(f"{place}/images", params={"contender": "aligned", "position": 1}).json()["data"]
    assert [one["id"] for one in only] == [one["id"] for one in images[6:]]
    told = api.client.get(f"{place}/events").json()["data"]
    assert [one["type"] for one in told] == ["candidates_started", *2 * ["candidates_drawn"], "run_completed"]
    assert "images" not in told[1]["data"]
    assert api.client.delete(place).json() == {"id": found["id"], "object": "candidates", "deleted": True}
    assert_problem(api.client.get(f"{place}/images"), 404, "candidates_not_found")


def test_a_later_attempt_and_later_candidates_know_what_is_there(api: Api) -> None:
    first = created(api)["id"]
    drawn(api, first)
    second = jobs.get(api.parts.store, DEFAULT_PROJECT_ID, created(api, prompts=["a small blue star"])["id"])
    other = jobs.get(api.parts.store, DEFAULT_PROJECT_ID, created(api, sampling={"num_inference_steps": 3})["id"])
    assert second is not None
    assert other is not None
    assert len(candidates.drawn_already(api.parts.store, first).images) == 8
    assert {one.prompt for one in candidates.known_images(api.parts.store, second)} == {"a small blue star"}
    assert len(candidates.known_images(api.parts.store, second)) == 4
    assert candidates.known_images(api.parts.store, other) == ()


@pytest.mark.parametrize(
    ("changes", "pointer", "code"),
    [
        ({"contenders": []}, "/spec/contenders", "too_short"),
        ({"contenders": [{"name": "a", "model": "nothing"}]}, "/spec/contenders/0/model/name", "unknown_model"),
        ({"contenders": 2 * SPEC["contenders"][:1]}, "/spec/contenders/1/name", "value_error"),
        ({"prompts": "ps_" + 26 * "0"}, "/spec/prompts/id", "prompt_set_not_found"),
        ({"seeds": [3, 3, 4], "seeds_per_prompt": 3}, "/spec/seeds", "value_error"),
        ({"seeds": [3, 4, 5], "seeds_per_prompt": 2}, "/spec/seeds_per_prompt", "value_error"),
        (
            {"seeds_per_prompt": 64, "prompts": [f"a circle {n}" for n in range(200)]},
            "/spec/prompts",
            "too_many_images",
        ),
        ({"rewards": ["colorfulness"]}, "/spec/rewards", "extra_forbidden"),
    ],
)
def test_what_is_wrong_is_told_at_its_field(api: Api, changes: dict[str, Any], pointer: str, code: str) -> None:
    body = {"spec": {**SPEC, **changes}}
    problem = assert_problem(api.client.post("/v1/candidates", json=body), 422, "invalid_request")
    assert (pointer, code) in [(one["pointer"], one["code"]) for one in problem["errors"]]
    validated = api.client.post("/v1/candidates/validate", json=body).json()
    assert not validated["valid"]
    assert [one["pointer"] for one in validated["errors"]] == [one["pointer"] for one in problem["errors"]]


def test_what_is_right_is_estimated(api: Api) -> None:
    found = api.client.post("/v1/candidates/validate", json={"spec": SPEC}).json()
    assert found["valid"]
    assert found["estimate"]["num_images"] == 8
    assert found["resolved_spec"]["seeds_per_prompt"] == 2
    assert api.client.get("/v1/candidates").json()["data"] == []


def test_they_are_cancelled_and_not_resumed(api: Api) -> None:
    place = f"/v1/candidates/{created(api)['id']}"
    assert_problem(api.client.delete(place), 409, "candidates_in_use")
    assert api.client.post(f"{place}/cancel").json()["status"] == "cancelled"
    refused = assert_problem(api.client.post(f"{place}/resume"), 409, "invalid_transition")
    assert refused["detail"] == "resume is not possible: the candidates are cancelled"
    assert api.client.delete(place).status_code == 200
    gone = assert_problem(api.client.get(place), 404, "candidates_not_found")
    assert gone["detail"].startswith("there are no candidates 'cand_")


def test_another_project_sees_nothing_of_them(new_api: NewApi) -> None:
    api = new_api(api_keys_required=True)
    api.client.headers.update(key_of(api, "owner")[1])
    place = f"/v1/candidates/{created(api)['id']}"
    stranger = key_of(api, "another")[1]
    for path in (place, f"{place}/images", f"{place}/events", f"{place}/logs"):
        assert_problem(api.client.get(path, headers=stranger), 404, "candidates_not_found")
    assert api.client.get("/v1/candidates", headers=stranger).json()["data"] == []
    assert_problem(api.client.post(f"{place}/cancel", headers=stranger), 404, "candidates_not_found")


PLAY: dict[str, Any] = {"prompt": "a red circle", "seed": 7, "contenders": SPEC["contenders"]}


def test_the_playground_comes_before_all_jobs_and_has_little_time(any_api: Api) -> None:
    api = any_api
    job_id = api.new_job()
    answer = api.client.post("/v1/playground", json=PLAY)
    assert answer.status_code == 201, answer.text
    found = answer.json()
    assert answer.headers["location"] == f"/v1/candidates/{found['id']}"
    assert (found["spec"]["seeds"], found["spec"]["max_run_seconds"], found["progress"]["total"]) == ([7], 120.0, 2)
    assert waiting.next_jobs(api.parts.store, 5) == (found["id"], job_id)
    assert found["queue"]["position"] == 1
    assert api.client.get(f"/v1/jobs/{job_id}").json()["queue"]["position"] == 2
    twice = api.client.post("/v1/playground", json={**PLAY, "contenders": 2 * SPEC["contenders"][:1]})
    assert_problem(twice, 422, "invalid_request")


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"prompt": ""}, "/prompt"),
        ({"prompt": "a\0b"}, "/prompt"),
        ({"seed": 2**32}, "/seed"),
        ({"sampling": {"num_inference_steps": 0}}, "/sampling/num_inference_steps"),
        ({"contenders": [{"name": "a", "model": "no-such-model"}]}, "/contenders/0/model/name"),
        ({"contenders": [SPEC["contenders"][0], {"name": "b", "model": f"ckpt_{26 * '0'}"}]}, "/contenders/1/model/id"),
        ({"contenders": 2 * SPEC["contenders"][:1]}, "/contenders/1/name"),
    ],
)
def test_what_is_wrong_in_the_playground_is_told_at_its_place_in_what_was_sent(
    api: Api, changes: dict[str, Any], pointer: str
) -> None:
    problem = assert_problem(api.client.post("/v1/playground", json={**PLAY, **changes}), 422, "invalid_request")
    assert [one["pointer"] for one in problem["errors"]] == [pointer]
    assert problem["detail"].startswith(f"{pointer}: ")


def test_the_playground_is_off_where_keys_are_required_until_the_operator_opens_it(new_api: NewApi) -> None:
    for settings, status in (({}, 403), ({"playground": True}, 201)):
        api = new_api(api_keys_required=True, **settings)
        api.client.headers.update(key_of(api, "owner")[1])
        assert api.client.get("/v1/playground").json()["is_on"] is (status == 201)
        assert api.client.post("/v1/playground", json=PLAY).status_code == status
