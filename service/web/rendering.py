"""From what the API answered to a page: templates with everything escaped, and headers under which nothing but our own files runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlencode, urlsplit

from fastapi import Depends, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from service.settings import Settings
from service.web import words
from service.web.asking import Api, ApiDep, RefusedError
from service.web.assets import address
from service.web.navigation import links

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
TEMPLATES.filters.update(words.FILTERS)


class Pages:
    """What shows pages to one reader."""

    def __init__(self, request: Request, api: Api) -> None:
        self._request = request
        self._api = api
        self.settings: Settings = request.app.state.parts.settings
        self.root: str = request.scope.get("root_path", "").rstrip("/")
        self.origin = f"{request.url.scheme}://{request.headers.get('host', 'localhost')}{self.root}"

    async def show(self, template: str, status: int = 200, **what: Any) -> HTMLResponse:
        """The page, with what every page has: who is signed in, and where scripts and styles are."""
        return self._rendered(template, status, await self._session(), what)

    def show_to_anybody(self, template: str, status: int = 200, **what: Any) -> HTMLResponse:
        """A page for somebody who need not be signed in."""
        return self._rendered(template, status, None, what)

    def go_to(self, path: str, **query: Any) -> RedirectResponse:
        """Have the browser look there next; `path` begins with a slash."""
        return RedirectResponse(f"{self.root}{path}{f'?{urlencode(query)}' if query else ''}", 303)

    async def _session(self) -> dict[str, Any] | None:
        """The reader's session, with the CSRF token that forms send back; None where nobody signs in."""
        if not self.settings.api_keys_required:
            return None
        try:
            return await self._api.get("/v1/sessions/current")
        except RefusedError as refused:
            if refused.status in (401, 404):
                return None
            raise

    def _rendered(
        self, template: str, status: int, session: Mapping[str, Any] | None, what: Mapping[str, Any]
    ) -> HTMLResponse:
        page = TEMPLATES.get_template(template).render(
            **what,
            root=self.root,
            asset=lambda name: self.root + address(name),
            session=session,
            csrf=(session or {}).get("csrf_token", ""),
            keys_required=self.settings.api_keys_required,
            links=links(self._request.url.path.removeprefix(self.root)),
        )
        headers = {
            "Content-Security-Policy": policy(self.settings),
            "Referrer-Policy": "same-origin",  # with none at all browsers hide where a form comes from, and it is refused
        }
        return HTMLResponse(page, status, headers)


def policy(settings: Settings) -> str:
    """Only files of this server, and pictures of the object store where browsers fetch those themselves; no inline script or style."""
    store = urlsplit(settings.s3_public_endpoint_url or settings.s3_endpoint_url or "")
    pictures = f"'self' blob: {store.scheme}://{store.netloc}" if store.netloc else "'self' blob:"
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src {pictures}; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def pages_of(request: Request, api: ApiDep) -> Pages:
    return Pages(request, api)


PagesDep = Annotated[Pages, Depends(pages_of)]
