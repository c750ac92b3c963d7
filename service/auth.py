"""Who asks, and whether they may: an API key's project and scope, or the owner where the operator asks for no keys.

What a route asks for is said here once: GET reads, everything else submits. A route that means another thing says so with
`dependencies=[needs("admin")]`, and what asks for no key at all has no `ProjectDep` and lies outside of `/v1`.
"""

from dataclasses import dataclass
from typing import Annotated, Any, get_args

from fastapi import Depends, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.api.browsers import comes_from_another_page
from service.api.context import PartsDep
from service.errors import ApiError
from service.store import audit, projects
from service.store.ids import is_id
from service.store.records import Scope

SCOPES: tuple[Scope, ...] = get_args(Scope)  # each may what those before it may
READING = frozenset({"GET", "HEAD"})
CHALLENGE = 'Bearer realm="attune"'

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    description="A project's key as `Authorization: Bearer KEY`. Its scope is `read`, `submit` or `admin`, each of which may "
    "what those before it may; an operation names the one that it asks for. A server that runs embedded asks for none.",
)


@dataclass(frozen=True)
class Caller:
    """Whose request it is. A server without keys takes everybody for the owner of the default project."""

    project_id: str
    scope: Scope
    key_id: str | None


@dataclass(frozen=True)
class Needs:
    """The scope that a route asks for, where its verb says another."""

    scope: Scope

    def __call__(self) -> None:
        """Read by `scope_of`; there is nothing to do."""


def needs(scope: Scope) -> Any:
    """For the `dependencies` of a route or a router."""
    return Depends(Needs(scope))


def scope_of(route: APIRoute) -> Scope:
    """The scope that a key must have for this route."""
    said: list[Scope] = [one.dependency.scope for one in route.dependencies if isinstance(one.dependency, Needs)]
    if said:
        return max(said, key=lambda scope: SCOPES.index(scope))
    return "read" if set(route.methods or ()) <= READING else "submit"


def current_caller(
    request: Request, parts: PartsDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> Caller:
    """Who asks; raises 401 where a key is required and none that is good was sent, 403 where it may not do this.

    A server without keys takes everybody for its owner, the pages that its owner's browser shows among them: those are
    refused with 403 where they would change something.
    """
    if not parts.settings.api_keys_required:
        if comes_from_another_page(request.method, request.headers, parts.settings):
            detail = "a page of another site sent this request, and this server asks for no key"
            raise ApiError(403, "cross_site_request", f"{detail}; ATTUNE_CORS_ORIGINS names pages that may")
        _is_the_deed_of(request, projects.DEFAULT_PROJECT_ID, None)
        return Caller(projects.DEFAULT_PROJECT_ID, "admin", None)
    key = None if credentials is None else projects.authenticate(parts.store, credentials.credentials)
    if key is None:
        # RFC 6750: a key that is wrong, expired or revoked is an invalid token; nothing is said where none was sent
        challenge = CHALLENGE if credentials is None else f'{CHALLENGE}, error="invalid_token"'
        detail = "send a valid API key as `Authorization: Bearer KEY`"
        raise ApiError(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})
    _is_the_deed_of(request, key.project_id, key.id)
    wanted = scope_of(request.scope["route"])
    if SCOPES.index(key.scope) < SCOPES.index(wanted):
        raise ApiError(
            403,
            "insufficient_scope",
            f"this asks for a key with the scope {wanted}, and {key.prefix}... has {key.scope}",
            headers={"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{wanted}"'},
        )
    return Caller(key.project_id, key.scope, key.id)


def _is_the_deed_of(request: Request, project_id: str, key_id: str | None) -> None:
    """Say in whose name the request is, so that the store writes down what it changes; to look is no deed."""
    deed, route = audit.current.get(), request.scope["route"]
    if deed is None or request.method in READING or scope_of(route) == "read":
        return
    deed.action = f"{request.method} {route.path}"
    deed.object_ids = [one for name, one in request.path_params.items() if name.endswith("_id") and is_id(one)]
    deed.project_id, deed.key_id = project_id, key_id


CallerDep = Annotated[Caller, Depends(current_caller)]


def current_project(caller: CallerDep) -> str:
    """Id of the caller's project."""
    return caller.project_id


ProjectDep = Annotated[str, Depends(current_project)]
