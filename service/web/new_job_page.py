"""A new job: a spec to begin with, the fields of its method, and what the API says of it before anything starts."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Query, Response

from service.web.asking import Api, ApiDep, RefusedError, part
from service.web.method_fields import fields_of
from service.web.rendering import Pages, PagesDep
from service.web.sign_in import Csrf, refuse_other_sites

OFFERED = 100
FIRST_STEPS = 200
TRAINED_PROMPTS = ["a big red circle on the left", "a small blue square on the right"]
JUDGED_PROMPTS = ["a big blue circle on the right", "a small red square on the left"]
LONGEST_SPEC = 4 * 2**20

router = APIRouter(include_in_schema=False)


@router.get("/jobs/new")
async def show_new_job(
    pages: PagesDep,
    api: ApiDep,
    method: str = "diffusion_dpo",
    dataset: str = "",
    earlier: Annotated[str, Query(alias="from")] = "",
) -> Response:
    """A form with a spec that would run: of an earlier job, or of a method with the first model and judge of the catalog."""
    if earlier:
        spec = (await api.get(f"/v1/jobs/{part(earlier)}"))["spec"]
    else:
        spec = await _first_spec(api, method, dataset)
    return await _form(pages, api, json.dumps(spec, indent=2, ensure_ascii=False), "", await _checked(api, spec, ""))


@router.post("/jobs/new", dependencies=[Depends(refuse_other_sites)])
async def take_new_job(
    pages: PagesDep,
    api: ApiDep,
    spec: Annotated[str, Form(max_length=LONGEST_SPEC)],
    name: Annotated[str, Form(max_length=200)] = "",
    action: Annotated[str, Form()] = "check",
    csrf: Csrf = "",
) -> Response:
    """Say what is wrong with the spec and what it will take, or start it."""
    try:
        written = json.loads(spec)
    except ValueError as error:
        return await _form(pages, api, spec, name, {"valid": False, "errors": [_not_json(error)]}, status=422)
    if action == "start":
        try:
            job = await api.post("/v1/jobs", csrf, json=_body(written, name))
        except RefusedError as refused:
            if refused.status not in (409, 422, 429):
                raise
            return await _form(pages, api, spec, name, _told(refused), status=refused.status)
        return pages.go_to(f"/jobs/{job['id']}")
    return await _form(pages, api, spec, name, await _checked(api, written, csrf))


async def _form(pages: Pages, api: Api, spec: str, name: str, verdict: dict[str, Any], status: int = 200) -> Response:
    methods = (await api.get("/v1/methods"))["data"]
    chosen = _type_in(spec)
    found = next((one for one in methods if one["id"] == chosen), None)
    return await pages.show(
        "new_job.html",
        status=status,
        spec=spec,
        name=name,
        verdict=verdict,
        methods=methods,
        method=chosen,
        about=found["description"] if found else "",
        fields=fields_of(found["json_schema"]) if found else [],
        models=(await api.get("/v1/models"))["data"],
        datasets=[one for one in (await api.get("/v1/datasets", limit=OFFERED))["data"] if one["status"] == "ready"],
        base_url=str(pages.settings.public_url or "").rstrip("/"),
    )


async def _first_spec(api: Api, method: str, dataset: str) -> dict[str, Any]:
    """What runs as it is: the first model and judge of the catalog, and the data set or a few prompts."""
    models, rewards = (await api.get("/v1/models"))["data"], (await api.get("/v1/rewards"))["data"]
    judge = rewards[0]["id"] if rewards else None
    if not dataset:
        ready = [one for one in (await api.get("/v1/datasets", limit=OFFERED))["data"] if one["status"] == "ready"]
        dataset = ready[0]["id"] if ready else ""
    methods = {one["id"]: one for one in (await api.get("/v1/methods"))["data"]}
    wanted = methods.get(method, {}).get("json_schema", {}).get("properties", {})
    chosen: dict[str, Any] = {"type": method}
    evaluation: dict[str, Any] = {"rewards": [judge]} if judge else {}
    if "dataset" in wanted:
        chosen["dataset"] = {"type": "stored", "id": dataset}
    if "prompts" in wanted:  # what is trained on is not what is judged
        chosen["prompts"] = TRAINED_PROMPTS
        evaluation["prompts"] = JUDGED_PROMPTS
    if "reward" in wanted and judge:
        chosen["reward"] = judge
    if "rewards" in wanted and judge:
        chosen["rewards"] = [judge]
    return {
        "model": models[0]["id"] if models else "",
        "method": chosen,
        "training": {"steps": FIRST_STEPS},
        "evaluation": evaluation,
    }


async def _checked(api: Api, spec: Any, csrf: str) -> dict[str, Any]:
    """What `POST /v1/jobs/validate` says."""
    try:
        return await api.post("/v1/jobs/validate", csrf, json={"spec": spec})
    except RefusedError as refused:
        if refused.status not in (403, 422):
            raise
        return _told(refused)


def _told(refused: RefusedError) -> dict[str, Any]:
    told = {"pointer": "", "code": refused.problem["code"], "message": refused.problem["detail"]}
    return {"valid": False, "errors": refused.errors or [told]}


def _not_json(error: ValueError) -> dict[str, str]:
    return {"pointer": "", "code": "json_invalid", "message": f"the spec is not JSON: {error}"}


def _body(spec: Any, name: str) -> dict[str, Any]:
    return {"spec": spec, **({"name": name} if name else {})}


def _type_in(spec: str) -> str:
    """The method that a spec names, if it can be read."""
    try:
        method = json.loads(spec)["method"]
        found = method if isinstance(method, str) else method["type"]
    except (ValueError, KeyError, TypeError):
        return ""
    return found if isinstance(found, str) else ""
