"""What the API refuses, as a page: for browsers that ask for one, wherever the problem arose."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from starlette.responses import JSONResponse

from service.web.asking import Api, RefusedError
from service.web.rendering import Pages
from service.web.things import Way, ways_out

SIGN_IN = "/sign-in"


def install(app: FastAPI) -> None:
    """After the API's own handlers: theirs answer programs as before, and ask here for a page where a browser reads."""
    for kind, handler in list(app.exception_handlers.items()):
        if callable(handler):
            app.exception_handlers[kind] = _with_page(handler)
    app.add_exception_handler(RefusedError, _answer_refused)


def wants_page(request: Request) -> bool:
    """Whether a person looks: the API's own paths never answer with a page."""
    is_api = request.url.path.removeprefix(request.scope.get("root_path", "")).startswith("/v1")
    return not is_api and "text/html" in request.headers.get("accept", "")


def problem_page(request: Request, status: int, problem: dict[str, Any]) -> Response:
    """The page of a problem; whoever has to sign in is led there first, and back afterwards."""
    pages = Pages(request, Api(request))
    if status == 401:
        asked = f"{request.url.path}?{request.url.query}" if request.url.query else request.url.path
        return pages.go_to(SIGN_IN, next=asked.removeprefix(pages.root) if request.method == "GET" else "/")
    return pages.show_to_anybody("problem.html", status, problem=problem, ways=_ways(request, pages, problem["code"]))


def _ways(request: Request, pages: Pages, code: str) -> list[Way]:
    """Of where the reader came from only the path counts, and only where it was of this server."""
    referer = urlsplit(request.headers.get("referer", ""))
    came_from = referer.path.removeprefix(pages.root) if referer.netloc == request.headers.get("host") else ""
    asked = request.url.path.removeprefix(pages.root)
    return ways_out(asked, came_from, code, is_read=request.method == "GET")


def _answer_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    if wants_page(request) or request.headers.get("hx-request"):
        return problem_page(request, error.status, error.problem)
    return JSONResponse(error.problem, error.status, media_type="application/problem+json")


def _with_page(handler: Callable[..., Any]) -> Callable[[Request, Any], Awaitable[Response]]:
    async def answer(request: Request, error: Exception) -> Response:
        found = handler(request, error)
        response: Response = await found if hasattr(found, "__await__") else found
        if isinstance(response, RedirectResponse) or not wants_page(request):
            return response
        return problem_page(request, response.status_code, json.loads(bytes(response.body)))

    return answer
