"""Labeling: what there is to judge, and one question after the other. Everything works without scripts."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Request, Response

from service.cookies import CSRF_HEADER, is_https
from service.web.asking import Api, ApiDep, RefusedError, part
from service.web.rendering import Pages, PagesDep
from service.web.sign_in import Csrf, refuse_other_sites

AT_ONCE = 20
LOOKED_AT = 100  # of what was drawn, for those that are no plays
NAME_COOKIE = "attune_annotator"
REMEMBERED_SECONDS = 365 * 86_400
PLAYGROUND = "playground"
Said = Literal["left", "right", "tie", "both_bad", "skip", "undo"]
NumberField = Annotated[int | None, Form(ge=0, lt=2**31)]
NameField = Annotated[str, Form(max_length=64)]

router = APIRouter(include_in_schema=False)


@router.get("/label")
async def show_labelings(
    pages: PagesDep, api: ApiDep, request: Request, after: str = "", drawn_after: str = ""
) -> Response:
    """Labelings with how far the reader is, and pictures that are or were drawn for some."""
    who = who_judges(request, pages)
    labelings = await api.get("/v1/labelings", limit=AT_ONCE, after=after, annotator=who)
    drawn = await api.get("/v1/candidates", limit=LOOKED_AT, after=drawn_after)
    draws = [one for one in drawn["data"] if one["metadata"].get("made_by") != PLAYGROUND]
    shown = draws[:AT_ONCE]
    return await pages.show(
        "label.html",
        labelings=labelings,
        draws=shown,
        older=shown[-1]["id"] if len(draws) > AT_ONCE else drawn["last_id"] if drawn["has_more"] else None,
        has_plays=len(draws) < len(drawn["data"]),
        who=who,
    )


@router.get("/label/{labeling_id}")
async def show_question(
    pages: PagesDep, api: ApiDep, request: Request, labeling_id: str, annotator: str = ""
) -> Response:
    """The next question of whoever asks; once there is none, what came of all."""
    who = annotator or who_judges(request, pages)
    path = f"/v1/labelings/{part(labeling_id)}"
    asked = await api.get(f"{path}/next", annotator=who)
    if not asked["data"]:
        return pages.go_to(f"/label/{part(labeling_id)}/results", **named(request, pages, who))
    return await _question(pages, api, labeling_id, asked, who)


@router.post("/label/{labeling_id}/votes", dependencies=[Depends(refuse_other_sites)])
async def take_vote(
    pages: PagesDep,
    api: ApiDep,
    request: Request,
    labeling_id: str,
    choice: Annotated[Said, Form()],
    question: NumberField = None,
    last: NumberField = None,
    annotator: NameField = "",
    csrf: Csrf = "",
) -> Response:
    """Put down what was said of the question that the form showed, or take back the one before; then the next question."""
    path, headers = f"/v1/labelings/{part(labeling_id)}/votes", {CSRF_HEADER: csrf}
    params = {"annotator": annotator} if annotator else {}
    if choice == "undo" and last is not None:
        await api.send("DELETE", f"{path}/{last}", headers, params=params)
    elif choice != "undo" and question is not None:
        await api.send("PUT", f"{path}/{question}", headers, params=params, json={"choice": choice})
    return pages.go_to(f"/label/{part(labeling_id)}", **named(request, pages, annotator))


@router.post("/label/{labeling_id}/name", dependencies=[Depends(refuse_other_sites)])
async def take_name(
    pages: PagesDep, api: ApiDep, request: Request, labeling_id: str, annotator: NameField = ""
) -> Response:
    """Remember in this browser who judges, where no key says it."""
    path = f"/v1/labelings/{part(labeling_id)}"
    try:
        await api.get(f"{path}/next", annotator=annotator.strip())
    except RefusedError as refused:
        if refused.status != 422:
            raise
        who = who_judges(request, pages)
        asked = await api.get(f"{path}/next", annotator=who)
        return await _question(pages, api, labeling_id, asked, who, refused_name=annotator, status=422)
    response = pages.go_to(f"/label/{part(labeling_id)}")
    response.set_cookie(
        NAME_COOKIE,
        annotator.strip(),
        max_age=REMEMBERED_SECONDS,
        path=f"{pages.root}/label",
        secure=is_https(request, pages.settings),
        httponly=True,
        samesite="strict",
    )
    return response


async def _question(
    pages: Pages,
    api: Api,
    labeling_id: str,
    asked: dict[str, Any],
    who: str,
    refused_name: str | None = None,
    status: int = 200,
) -> Response:
    return await pages.show(
        "judge.html",
        status=status,
        labeling=await api.get(f"/v1/labelings/{part(labeling_id)}", annotator=who),
        question=asked["data"][0] if asked["data"] else None,
        progress=asked["progress"],
        refused_name=refused_name,
    )


def who_judges(request: Request, pages: Pages) -> str:
    """Who judges in this browser; where keys are asked for, the key says it."""
    return "" if pages.settings.api_keys_required else request.cookies.get(NAME_COOKIE, "")


def named(request: Request, pages: Pages, who: str) -> dict[str, str]:
    """Who judges, for an address, where the browser does not say it anyway."""
    return (
        {}
        if pages.settings.api_keys_required or who in ("", request.cookies.get(NAME_COOKIE, "me"))
        else {"annotator": who}
    )
