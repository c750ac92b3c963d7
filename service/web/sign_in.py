"""Signing in with an API key, and out again."""

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request, Response

from service.api.browsers import comes_from_another_page
from service.cookies import csrf_token, is_csrf_token, set_sign_in, sign_in_token
from service.errors import ApiError
from service.web.asking import ApiDep, RefusedError
from service.web.problems import SIGN_IN
from service.web.rendering import Pages, PagesDep

LONGEST_KEY = 200
FORGOTTEN = {
    "status": 403,
    "detail": "This form was shown too long ago, or this browser takes no cookies. Sign in again.",
}
Csrf = Annotated[str, Form(max_length=200)]


def refuse_other_sites(request: Request) -> None:
    """Raise 403 for a form that a page of another site sent, before anything is looked at."""
    if comes_from_another_page(request.method, request.headers, request.app.state.parts.settings):
        raise ApiError(403, "cross_site_request", "a page of another site sent this form")


router = APIRouter(include_in_schema=False, dependencies=[Depends(refuse_other_sites)])


@router.get(SIGN_IN)
async def show_sign_in(pages: PagesDep, request: Request, next: str = "/") -> Response:
    if not pages.settings.api_keys_required:
        return pages.go_to("/")
    return _form(pages, request, next)


@router.post(SIGN_IN)
async def sign_in(
    pages: PagesDep,
    api: ApiDep,
    request: Request,
    key: Annotated[str, Form(max_length=LONGEST_KEY)],
    next: Annotated[str, Form()] = "/",
    csrf: Csrf = "",
) -> Response:
    """A session for the key, whose cookie the browser then has; the key itself is kept nowhere."""
    if not is_csrf_token(csrf, sign_in_token(request, pages.settings)):
        return _form(pages, request, next, FORGOTTEN)
    try:
        answer = await api.send("POST", "/v1/sessions", headers={"Authorization": f"Bearer {_printable(key)}"})
    except RefusedError as refused:
        if refused.status not in (401, 429):
            raise
        return _form(pages, request, next, refused.problem)
    response = pages.go_to(_own(next))
    for cookie in answer.headers.get_list("set-cookie"):
        response.headers.append("set-cookie", cookie)
    return response


def _form(pages: Pages, request: Request, next: str, problem: dict[str, Any] | None = None) -> Response:
    """The form with a token of its own: a page that cannot read it signs nobody in, as somebody that they are not."""
    with_cookie = Response()
    token = csrf_token(set_sign_in(request, with_cookie, pages.settings))
    status = problem["status"] if problem else 200
    page = pages.show_to_anybody("sign_in.html", status, next=_own(next), problem=problem, token=token)
    page.headers["set-cookie"] = with_cookie.headers["set-cookie"]
    return page


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
