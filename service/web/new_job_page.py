"""A new job: a form made from the schema of its method, or the spec as JSON, and what the API says of it before anything starts."""

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response

from service.web.asking import Api, ApiDep, RefusedError
from service.web.field_problems import told
from service.web.first_spec import first_spec, required_of, spec_of_job, spec_on_checkpoint
from service.web.job_form import Asked, lean, parts_of_form, reading_of
from service.web.offers import known_to
from service.web.presets import laid_over, presets_of, with_preset
from service.web.recipes import holds, recipe_of, without
from service.web.rendering import Pages, PagesDep
from service.web.same_elsewhere import elsewhere
from service.web.sign_in import refuse_other_sites

MOST_FIELDS = 2_000
LONGEST_FIELD = 4 * 2**20

router = APIRouter(include_in_schema=False)


@router.get("/jobs/new")
async def show_new_job(
    pages: PagesDep,
    api: ApiDep,
    method: str = "diffusion_dpo",
    dataset: str = "",
    earlier: Annotated[str, Query(alias="from")] = "",
    checkpoint: str = "",
    model: str = "",
    view: Annotated[str, Query(pattern="^(form|json)$")] = "form",
) -> Response:
    """A form with a spec that would run: of an earlier job, on a checkpoint's weights, or of a method, with the model that `GET /v1/models` lists by this name or the first one."""
    if checkpoint:
        spec = await spec_on_checkpoint(api, checkpoint)
    elif earlier:
        spec = await spec_of_job(api, earlier)
    else:
        spec = await first_spec(api, method, dataset, model)
    spec = lean(spec) if view == "form" else spec
    return await _page(pages, api, Asked(spec, view=view), await _checked(api, spec, ""))


async def _asked(request: Request) -> Asked:
    async with request.form(max_fields=MOST_FIELDS, max_part_size=LONGEST_FIELD) as form:
        return reading_of({name: value for name, value in form.multi_items() if isinstance(value, str)})


@router.post("/jobs/new", dependencies=[Depends(refuse_other_sites)])
async def take_new_job(pages: PagesDep, api: ApiDep, asked: Annotated[Asked, Depends(_asked)]) -> Response:
    """Say what is wrong with the spec and what it will take, show it otherwise, or start it."""
    if asked.problem is not None:
        return await _page(pages, api, asked, {"valid": False, "errors": [asked.problem]}, status=422)
    if asked.action == "start":
        try:
            job = await api.post("/v1/jobs", asked.csrf, json=asked.body(), once=asked.once)
        except RefusedError as refused:
            if refused.status not in (409, 422, 429):
                raise
            return await _page(pages, api, asked, {"valid": False, "errors": told(refused)}, status=refused.status)
        return pages.go_to(f"/jobs/{job['id']}")
    if asked.preset or asked.has_new_method:
        models = (await api.get("/v1/models"))["data"]
        recipe = recipe_of(models, asked.spec, asked.method)
        if asked.preset:
            asked = asked.with_spec(with_preset(asked.spec, asked.preset, asked.method, recipe))
        if asked.has_new_method:
            needed = laid_over({"method": await required_of(api, asked.method, "")}, recipe)
            typed = without(asked.spec, recipe_of(models, asked.spec, asked.earlier_method))
            asked = asked.with_spec(laid_over(needed, typed))
        asked = asked.with_spec(lean(asked.spec))
    return await _page(pages, api, asked, await _checked(api, asked.spec, asked.csrf))


async def _page(pages: Pages, api: Api, asked: Asked, verdict: dict[str, Any], status: int = 200) -> Response:
    methods = (await api.get("/v1/methods"))["data"]
    found = next((one for one in methods if one["id"] == asked.method), None)
    known = await known_to(api)
    errors = [{**one, "pointer": one["pointer"].removeprefix("/spec")} for one in verdict.get("errors", [])]
    form = parts_of_form(asked, known, [one["pointer"] for one in errors])
    recipe = recipe_of(known.models, asked.spec, asked.method)
    return await pages.show(
        "new_job.html",
        status=status,
        once=secrets.token_hex(16),
        asked=asked if form.can_show else asked.as_json(),
        form=form,
        verdict={**verdict, "errors": errors},
        methods=[one["id"] for one in methods],
        about=found["description"] if found else "",
        presets=presets_of(asked.method, recipe),
        is_recommended=bool(recipe) and holds(asked.spec, recipe),
        datasets=known.datasets,
        elsewhere=elsewhere(
            asked.spec,
            asked.name,
            asked.resume_from,
            (pages.settings.public_url or pages.origin).rstrip("/"),
            keys=pages.settings.api_keys_required,
        ),
    )


async def _checked(api: Api, spec: Any, csrf: str) -> dict[str, Any]:
    """What `POST /v1/jobs/validate` says."""
    try:
        return await api.post("/v1/jobs/validate", csrf, json={"spec": spec})
    except RefusedError as refused:
        if refused.status not in (403, 422):
            raise
        return {"valid": False, "errors": told(refused)}
