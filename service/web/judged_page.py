"""What came of a labeling: how far people agree, who won, and the data set that is made of it."""

import secrets
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response

from service.web.asking import Api, ApiDep, RefusedError, part
from service.web.draw_page import MENDED_HERE, OncePerForm
from service.web.field_problems import by_field, told
from service.web.label_page import NameField, named, who_judges
from service.web.rendering import Pages, PagesDep
from service.web.sign_in import Csrf, refuse_other_sites

router = APIRouter(include_in_schema=False)


@router.get("/label/{labeling_id}/results")
async def show_results(
    pages: PagesDep, api: ApiDep, request: Request, labeling_id: str, annotator: str = "", dataset: str = ""
) -> Response:
    """Who has judged how much, how far people agree, who won; and the data set that was made of it just now."""
    who = annotator or who_judges(request, pages)
    made = await api.get(f"/v1/datasets/{part(dataset)}") if dataset else None
    return await _results(pages, api, labeling_id, who, made)


@router.post("/label/{labeling_id}/dataset", dependencies=[Depends(refuse_other_sites)])
async def make_dataset(
    pages: PagesDep,
    api: ApiDep,
    request: Request,
    labeling_id: str,
    name: Annotated[str, Form(max_length=200)] = "",
    both_bad: Annotated[str, Form(max_length=10)] = "drop",
    annotator: NameField = "",
    once: OncePerForm = "",
    csrf: Csrf = "",
) -> Response:
    """Make a data set of the votes so far, and show how its check goes."""
    body = {"both_bad": both_bad, **({"name": name} if name else {})}
    try:
        made = await api.post(f"/v1/labelings/{part(labeling_id)}/dataset", csrf, json=body, once=once)
    except RefusedError as refused:
        if refused.status not in MENDED_HERE:
            raise
        problems = by_field(told(refused), {"/name": "name", "/both_bad": "both_bad"})
        return await _results(pages, api, labeling_id, annotator, None, problems, status=refused.status)
    return pages.go_to(f"/label/{part(labeling_id)}/results", dataset=made["id"], **named(request, pages, annotator))


async def _results(
    pages: Pages,
    api: Api,
    labeling_id: str,
    who: str,
    made: dict[str, Any] | None,
    problems: dict[str, list[str]] | None = None,
    status: int = 200,
) -> Response:
    path = f"/v1/labelings/{part(labeling_id)}"
    return await pages.show(
        "judged.html",
        status=status,
        labeling=await api.get(path, annotator=who),
        progress=(await api.get(f"{path}/next", annotator=who))["progress"],
        results=await api.get(f"{path}/results"),
        made=made,
        problems=problems or {},
        once=secrets.token_hex(16),
    )
