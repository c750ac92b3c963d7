"""Signing in with an API key, and out again."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request, Response

from service.api.browsers import comes_from_another_page
from service.errors import ApiError
from service.web.asking import ApiDep, RefusedError
from service.web.problems import SIGN_IN
from service.web.rendering import PagesDep

LONGEST_KEY = 200
Csrf = Annotated[str, Form(max_length=200)]


def refuse_other_sites(request: Request) -> None:
    """Raise 403 for a form that a page of another site sent, before anything is looked at."""
    if comes_from_another_page(request.method, request.headers, request.app.state.parts.settings):
        raise ApiError(403, "cross_site_request", "a page of another site sent this form")


router = APIRouter(include_in_schema=False, dependencies=[Depends(refuse_other_sites)])


@router.get(SIGN_IN)
async def show_sign_in(pages: PagesDep, next: str = "/") -> Response:
    if not pages.settings.api_keys_required:
        return pages.go_to("/")
    return pages.show_to_anybody("sign_in.html", next=_own(next), problem=None)


@router.post(SIGN_IN)
async def sign_in(
    pages: PagesDep, api: ApiDep, key: Annotated[str, Form(max_length=LONGEST_KEY)], next: Annotated[str, Form()] = "/"
) -> Response:
    """A session for the key, whose cookie the browser then has; the key itself is kept nowhere."""
    try:
        answer = await api.send("POST", "/v1/sessions", headers={"Authorization": f"Bearer {_printable(key)}"})
    except RefusedError as refused:
        if refused.status not in (401, 429):
            raise
        return pages.show_to_anybody("sign_in.html", refused.status, next=_own(next), problem=refused.problem)
    response = pages.go_to(_own(next))
    for cookie in answer.headers.get_list("set-cookie"):
        response.headers.append("set-cookie", cookie)
    return response


@router.post("/sign-out")
async def sign_out(pages: PagesDep, api: ApiDep, csrf: Csrf = "") -> Response:
    answer = await api.send("DELETE", "/v1/sessions/current", headers={"X-CSRF-Token": csrf})
    response = pages.go_to(SIGN_IN)
    for cookie in answer.headers.get_list("set-cookie"):
        response.headers.append("set-cookie", cookie)
    return response


def _own(path: str) -> str:
    """A path of this server, whatever an address said: nobody is led elsewhere after signing in."""
    is_own = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if is_own else "/"


def _printable(key: str) -> str:
    """Of the key what may stand in a header; what else was typed makes it a wrong one."""
    return "".join(letter for letter in key.strip() if letter.isascii() and letter.isprintable())
