"""Pictures for people to judge: the form that has them drawn, one such draw, and the questions that are made of it."""

import secrets
from itertools import combinations
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Response

from service.web.asking import Api, ApiDep, RefusedError, part
from service.web.contender_choices import model_groups
from service.web.draw_form import CHECKPOINT, FIELDS, REPORT_OF, DrawForm, Result, of_job, of_two, typed
from service.web.field_problems import by_field, number_or_text, told
from service.web.rendering import Pages, PagesDep
from service.web.sign_in import Csrf, refuse_other_sites

OFFERED_SETS = 100
FIELDS_OF_LABELING = {
    "/name": "name",
    "/num_pairs": "num_pairs",
    "/repeated": "repeated",
    "/between": "between",
    "/seed": "seed",
}
MENDED_HERE = (400, 404, 409, 413, 422, 429)
OncePerForm = Annotated[str, Form(max_length=64, pattern=r"^[0-9a-f]*$")]

router = APIRouter(include_in_schema=False)


@router.get("/label/draw")
async def show_draw(
    pages: PagesDep, api: ApiDep, model: str = "", against: str = "", job: str = "", checkpoint: str = ""
) -> Response:
    """The form: empty, for a checkpoint of a job against what it began from, or for the checkpoints of two."""
    if job:
        found = await api.get(f"/v1/jobs/{part(job)}")
        return await _form(
            pages, api, of_job(await _result(api, checkpoint or found["result_checkpoint_id"] or "", found))
        )
    two = [await _result(api, one) for one in (model, against) if one.startswith(CHECKPOINT)]
    return await _form(pages, api, of_two(*two) if len(two) == 2 else DrawForm(model=model, against=against))


async def _result(api: Api, checkpoint_id: str, job: dict[str, Any] | None = None) -> Result:
    """The checkpoint with its job, which is asked for where it is not known, and its report."""
    if job is None:
        checkpoint = await api.get(f"/v1/checkpoints/{part(checkpoint_id)}")
        job = await api.get(f"/v1/jobs/{part(checkpoint['job_id'])}")
    assert job is not None
    return Result(checkpoint_id, job, await api.get_or_none(f"/v1/jobs/{part(job['id'])}/report"))


@router.post("/label/draw", dependencies=[Depends(refuse_other_sites)])
async def draw(
    pages: PagesDep,
    api: ApiDep,
    form: Annotated[DrawForm, Depends(typed)],
    action: Annotated[str, Form(max_length=20)] = "draw",
    once: OncePerForm = "",
    csrf: Csrf = "",
) -> Response:
    """Say what the draw would take, or begin it and show it."""
    if action == "check" or form.own_problems():
        verdict = await api.post("/v1/candidates/validate", csrf, json=form.request())
        return await _form(pages, api, form, verdict, status=200 if action == "check" else 422)
    try:
        made = await api.post("/v1/candidates", csrf, json=form.request(), once=once)
    except RefusedError as refused:
        if refused.status not in MENDED_HERE:
            raise
        return await _form(pages, api, form, {"errors": told(refused)}, status=refused.status)
    return pages.go_to(f"/label/draws/{made['id']}")


async def _form(
    pages: Pages, api: Api, form: DrawForm, verdict: dict[str, Any] | None = None, status: int = 200
) -> Response:
    problems = by_field((verdict or {}).get("errors", []), FIELDS) | form.own_problems()
    return await pages.show(
        "draw.html",
        status=status,
        form=form,
        problems=problems,
        estimate=(verdict or {}).get("estimate"),
        groups=await model_groups(api, (form.model, form.against)),
        prompt_sets=(await api.get("/v1/prompt_sets", limit=OFFERED_SETS))["data"],
        once=secrets.token_hex(16),
    )


# --- a draw, and questions of it -----------------------------------------------------------------------------------


@router.get("/label/draws/{candidates_id}")
async def show_drawn(pages: PagesDep, api: ApiDep, candidates_id: str) -> Response:
    return await _drawn(pages, api, candidates_id, {})


@router.post("/label/draws/{candidates_id}", dependencies=[Depends(refuse_other_sites)])
async def ask_people(
    pages: PagesDep,
    api: ApiDep,
    candidates_id: str,
    num_pairs: Annotated[str, Form(max_length=50)] = "",
    repeated: Annotated[str, Form(max_length=50)] = "",
    between: Annotated[str, Form(max_length=20)] = "",
    report_of: Annotated[str, Form(max_length=100)] = "",
    name: Annotated[str, Form(max_length=200)] = "",
    once: OncePerForm = "",
    csrf: Csrf = "",
) -> Response:
    """Make questions of the pictures, and ask the first one."""
    found = await api.get(f"/v1/candidates/{part(candidates_id)}")
    pair = next((names for value, names in _pairings(found) if value == between and names), None)
    percent = number_or_text(repeated.strip()) if repeated.strip() else None
    body = {
        "candidates_id": candidates_id,
        "num_pairs": number_or_text(num_pairs.strip()) if num_pairs.strip() else None,
        "repeated": percent / 100 if isinstance(percent, int | float) else percent,
        "between": pair,
        "report_of": report_of if pair else None,
        "name": name,
    }
    body = {key: value for key, value in body.items() if value not in (None, "")}
    try:
        made = await api.post("/v1/labelings", csrf, json=body, once=once)
    except RefusedError as refused:
        if refused.status not in MENDED_HERE:
            raise
        filled = {"num_pairs": num_pairs, "repeated": repeated, "between": between, "name": name}
        problems = by_field(told(refused), FIELDS_OF_LABELING)
        return await _drawn(pages, api, candidates_id, filled, problems, status=refused.status)
    return pages.go_to(f"/label/{made['id']}")


@router.post("/label/draws/{candidates_id}/cancel", dependencies=[Depends(refuse_other_sites)])
async def cancel(pages: PagesDep, api: ApiDep, candidates_id: str, csrf: Csrf = "") -> Response:
    """Stop drawing; what is there stays and can be judged."""
    await api.post(f"/v1/candidates/{part(candidates_id)}/cancel", csrf)
    return pages.go_to(f"/label/draws/{part(candidates_id)}")


async def _drawn(
    pages: Pages,
    api: Api,
    candidates_id: str,
    filled: dict[str, str],
    problems: dict[str, list[str]] | None = None,
    status: int = 200,
) -> Response:
    found = await api.get(f"/v1/candidates/{part(candidates_id)}")
    report_of = found["metadata"].get(REPORT_OF, "")
    first_filled = {
        "num_pairs": "100",
        "repeated": "10",
        "between": "0-1" if report_of and len(found["spec"]["contenders"]) > 1 else "",
        "name": found["name"] or "",
    }
    return await pages.show(
        "drawn.html",
        status=status,
        drawn=found,
        pairings=[(value, names) for value, names in _pairings(found)],
        report_of=report_of,
        form=first_filled | filled,
        problems=problems or {},
        once=secrets.token_hex(16),
    )


def _pairings(found: dict[str, Any]) -> list[tuple[str, list[str]]]:
    """Which two models may be compared, the base first; and first of all no two."""
    names = [one["name"] for one in found["spec"]["contenders"]]
    return [("", []), *((f"{a}-{b}", [names[a], names[b]]) for a, b in combinations(range(len(names)), 2))]
