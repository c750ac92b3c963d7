"""Links that need no header: for `<img>`, `<a download>`, `EventSource` and whatever else takes nothing but an address."""

from datetime import UTC, datetime
from urllib.parse import unquote, urlsplit

from fastapi import Request
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import Match

from service.api.context import PartsDep
from service.api.problems import problems
from service.api.routers import api_router
from service.api.schemas.sessions import LinkRequest, SignedLink
from service.auth import CallerDep
from service.errors import FieldProblem, invalid_request
from service.scopes import is_linkable, needs
from service.signed_links import PARAMETER, signed
from service.store import link_secrets

router = api_router(prefix="/v1/links", tags=["sessions"], responses=problems(401, 403, 422, 500, 503))


@router.post("", summary="Sign a link", responses=problems(400, 413), dependencies=[needs("read")])
def create_link(body: LinkRequest, request: Request, caller: CallerDep, parts: PartsDep) -> SignedLink:
    """The address of a file or a stream that opens for some minutes without a key, to GET exactly this and nothing else.

    It ends before its time with the key, or with the session, that it was made with. Ranges and `Last-Event-ID` work as with a key. A server
    that asks for no keys answers the address as it is.
    """
    most = parts.settings.longest_link_seconds
    if body.expires_in > most:
        message = f"a link lasts at most {most} seconds here"
        raise invalid_request([FieldProblem(pointer="/expires_in", code="less_than_equal", message=message)])
    path = body.path.removeprefix(parts.base_url)
    _refuse_others(request, path)
    ends_at = int(datetime.now(UTC).timestamp()) + body.expires_in
    if (maker_id := caller.session_id or caller.key_id) is not None:
        link = signed(*link_secrets.to_sign(parts.store), maker_id, ends_at, path)
        path = f"{path}{'&' if '?' in path else '?'}{PARAMETER}={link}"
    return SignedLink(url=f"{parts.base_url}{path}", expires_at=datetime.fromtimestamp(ends_at, UTC))


def _refuse_others(request: Request, path: str) -> None:
    """Raise 422 for what is no file and no stream of the API."""
    try:
        split = urlsplit(path)
    except ValueError:
        split = None
    if split is not None and not (split.scheme or split.netloc or split.fragment) and PARAMETER not in split.query:
        scope = {**request.scope, "method": "GET", "path": unquote(split.path)}
        for context in iter_route_contexts(request.app.routes):
            route = context.original_route
            if isinstance(route, APIRoute) and is_linkable(route) and route.matches(scope)[0] is Match.FULL:
                return
    message = "expected the path of a file, a picture, a download or a stream under /v1, as the API names it"
    raise invalid_request([FieldProblem(pointer="/path", code="not_linkable", message=message)])
