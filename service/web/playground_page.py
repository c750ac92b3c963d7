"""The playground: a prompt, a seed and two models, whose pictures stand beside each other as soon as they are drawn."""

import secrets
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Response

from service.web.asking import Api, ApiDep, RefusedError, part
from service.web.contender_choices import label_in, model_groups, value_of_contender
from service.web.draw_page import MENDED_HERE, OncePerForm
from service.web.field_problems import by_field, told
from service.web.label_page import PLAYGROUND
from service.web.playground_form import FIELDS, PlaygroundForm, of_address, of_drawn, of_job, typed
from service.web.rendering import Pages, PagesDep
from service.web.sign_in import Csrf, refuse_other_sites

AT_ONCE = 8  # of what was drawn last

router = APIRouter(include_in_schema=False)


@router.get("/playground")
async def show_playground(
    pages: PagesDep,
    api: ApiDep,
    form: Annotated[PlaygroundForm, Depends(of_address)],
    job: str = "",
    checkpoint: str = "",
    drawn_after: str = "",
) -> Response:
    """The form: as the address fills it in, or with a job's model and a checkpoint of it."""
    if job:
        found = await api.get(f"/v1/jobs/{part(job)}")
        form = of_job(form, found, checkpoint or found["result_checkpoint_id"] or "")
    return await _playground(pages, api, form, drawn_after=drawn_after)


@router.post("/playground", dependencies=[Depends(refuse_other_sites)])
async def draw(
    pages: PagesDep,
    api: ApiDep,
    form: Annotated[PlaygroundForm, Depends(typed)],
    action: Annotated[Literal["draw", "next_seed"], Form()] = "draw",
    once: OncePerForm = "",
    csrf: Csrf = "",
) -> Response:
    """Have it drawn, from the seed that was typed or from the next one, and show it."""
    form = form.with_next_seed() if action == "next_seed" else form
    try:
        made = await api.post("/v1/playground", csrf, json=form.request(), once=once)
    except RefusedError as refused:
        if refused.status not in (*MENDED_HERE, 403):
            raise
        return await _playground(pages, api, form, problems=by_field(told(refused), FIELDS), status=refused.status)
    return pages.go_to(f"/playground/{made['id']}")


@router.get("/playground/{candidates_id}")
async def show_drawn(pages: PagesDep, api: ApiDep, candidates_id: str) -> Response:
    """What was drawn, or is on its way, and the form as it was sent."""
    path = f"/v1/candidates/{part(candidates_id)}"
    drawn = await api.get(path)
    if not _is_played(drawn):
        return pages.go_to(f"/label/draws/{drawn['id']}")
    images = {one["contender"]: one for one in (await api.get(f"{path}/images"))["data"]}
    return await _playground(pages, api, of_drawn(drawn["spec"]), drawn, images)


@router.post("/playground/{candidates_id}/cancel", dependencies=[Depends(refuse_other_sites)])
async def cancel(pages: PagesDep, api: ApiDep, candidates_id: str, csrf: Csrf = "") -> Response:
    """Wait no longer for it."""
    await api.post(f"/v1/candidates/{part(candidates_id)}/cancel", csrf)
    return pages.go_to(f"/playground/{part(candidates_id)}")


def _is_played(drawn: dict[str, Any]) -> bool:
    """Whether the playground had it drawn; anybody may write its mark on other candidates."""
    match drawn["spec"]:
        case {"prompts": [_], "seeds": [_], "contenders": [_] | [_, _]}:
            return drawn["metadata"].get("made_by") == PLAYGROUND
    return False


async def _playground(
    pages: Pages,
    api: Api,
    form: PlaygroundForm,
    drawn: dict[str, Any] | None = None,
    images: dict[str, dict[str, Any]] | None = None,
    problems: dict[str, list[str]] | None = None,
    status: int = 200,
    drawn_after: str = "",
) -> Response:
    groups = await model_groups(api, (form.model, form.against))
    if drawn is None and not form.model:
        form = form.beginning_with(groups)
    contenders = drawn["spec"]["contenders"] if drawn else []
    return await pages.show(
        "playground.html",
        status=status,
        playground=await api.get("/v1/playground"),
        form=form,
        problems=problems or {},
        groups=groups,
        drawn=drawn,
        sides=[
            (label_in(groups, value_of_contender(one)) or one["name"], (images or {}).get(one["name"]))
            for one in contenders
        ],
        before=await api.get("/v1/candidates", limit=AT_ONCE, after=drawn_after, **{"metadata[made_by]": PLAYGROUND}),
        once=secrets.token_hex(16),
    )
