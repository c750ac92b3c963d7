"""How pages ask the API: by requests to their own app, with the reader's cookie, so that a page may what its reader may.

Nothing goes over the network. What the API refuses, a page refuses: authentication, scopes, CSRF, limits and the audit log
are the API's own.
"""

from typing import Annotated, Any
from urllib.parse import quote

import httpx
from fastapi import Depends, Request

from service.cookies import CSRF_HEADER

ONCE_HEADER = "Idempotency-Key"
HANDED_ON = ("cookie", "host", "origin", "sec-fetch-site", "user-agent", "x-forwarded-for", "x-forwarded-proto")


class RefusedError(Exception):
    """The API answered with a problem, which the page shows."""

    def __init__(self, status: int, problem: dict[str, Any], headers: httpx.Headers) -> None:
        super().__init__(problem.get("detail", ""))
        self.status = status
        self.problem = problem
        self.headers = headers

    @property
    def errors(self) -> list[dict[str, Any]]:
        """The fields that were wrong: `{pointer, code, message}`."""
        return self.problem.get("errors", [])


class Api:
    """The API as the reader of a page has it."""

    def __init__(self, request: Request) -> None:
        client = (request.client.host, request.client.port) if request.client else ("127.0.0.1", 0)
        root = request.scope.get("root_path", "")
        self._transport = httpx.ASGITransport(request.app, root_path=root, client=client)
        self._base = f"{request.url.scheme}://{request.headers.get('host', 'localhost')}"
        self._headers = {name: request.headers[name] for name in HANDED_ON if name in request.headers}
        self._answers: dict[tuple[Any, ...], httpx.Response] = {}  # parts of a page ask for the same lists

    async def get(self, path: str, **query: Any) -> Any:
        """The JSON at `path`, which begins with `/v1`, asked once until something is ordered. Raises `RefusedError`."""
        given = {name: value for name, value in query.items() if value not in (None, "")}
        asked = (path, *(f"{name}={value}" for name, value in given.items()))
        if asked not in self._answers:
            self._answers[asked] = await self.send("GET", path, params=given)
        return self._answers[asked].json()  # anew, so that who changes it changes his own

    async def get_or_none(self, path: str, **query: Any) -> Any:
        """The same, or None where there is nothing."""
        try:
            return await self.get(path, **query)
        except RefusedError as refused:
            if refused.status == 404:
                return None
            raise

    async def post(self, path: str, csrf: str = "", json: Any = None, once: str = "") -> Any:
        """What the API answers to an order that a form of ours gave, with the CSRF token that was in it. Raises `RefusedError`.

        `once` is a key that the form has had since it was shown, so that a button that is pressed twice makes one thing.
        """
        headers = {CSRF_HEADER: csrf, **({ONCE_HEADER: once} if once else {})}
        return (await self.send("POST", path, headers=headers, json=json)).json()

    async def send(self, method: str, path: str, headers: dict[str, str] | None = None, **what: Any) -> httpx.Response:
        if method != "GET" and not path.endswith("/validate"):
            self._answers.clear()
        async with httpx.AsyncClient(transport=self._transport, base_url=self._base) as client:
            answer = await client.request(method, path, headers={**self._headers, **(headers or {})}, **what)
        if answer.status_code >= 400:
            raise RefusedError(answer.status_code, answer.json(), answer.headers)
        return answer


def asked_by(request: Request) -> Api:
    return Api(request)


ApiDep = Annotated[Api, Depends(asked_by)]


def part(identifier: str) -> str:
    """An id of the address, as a part of a path: whatever it is, it stays one."""
    return quote(identifier, safe="")
