"""Who asks, and whether they may: an API key's project and scope, or the owner where the operator asks for no keys.

A request says who it is by its key, by the cookie of a session that a key has opened, or, to GET one file, by a link that was
signed with one. The first of these that there is counts.

What a route asks for is in `scopes.py`.
"""

import time
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.api.browsers import comes_from_another_page
from service.api.context import Parts, PartsDep
from service.cookies import CSRF_HEADER, has_csrf_token, session_token
from service.errors import ApiError
from service.scopes import READING, SCOPES, is_deed, is_linkable, scope_of
from service.signed_links import PARAMETER, Link, is_genuine
from service.store import audit, link_secrets, projects, sessions
from service.store.ids import is_id
from service.store.records.projects import ApiKeyRecord, Scope

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
    session_id: str | None = None


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
    if credentials is not None:
        key = projects.authenticate(parts.store, credentials.credentials)
        caller = None if key is None else _with_key(key)
    else:
        caller = _by_session(request, parts) or _by_link(request, parts)
    if caller is None:
        # RFC 6750: a key that is wrong, expired or revoked is an invalid token; nothing is said where none was sent
        challenge = CHALLENGE if credentials is None else f'{CHALLENGE}, error="invalid_token"'
        detail = "send a valid API key as `Authorization: Bearer KEY`"
        raise ApiError(401, "unauthorized", detail, headers={"WWW-Authenticate": challenge})
    _is_the_deed_of(request, caller.project_id, caller.key_id)
    if caller.session_id is not None:
        _refuse_forged(request, parts)
    _refuse_lesser(caller, scope_of(request.scope["route"]))
    return caller


def _with_key(key: ApiKeyRecord, session_id: str | None = None) -> Caller:
    return Caller(key.project_id, key.scope, key.id, session_id)


def _by_session(request: Request, parts: Parts) -> Caller | None:
    """The caller whose browser sent a cookie that is good."""
    token = session_token(request, parts.settings)
    found = None if not token else sessions.of_token(parts.store, token, parts.settings.session_idle)
    return None if found is None else _with_key(found[1], found[0].id)


def _by_link(request: Request, parts: Parts) -> Caller | None:
    """The maker of a link that was signed for this very address, and may no more than to read it."""
    link = Link.parsed(request.query_params.get(PARAMETER, ""))
    if link is None or request.method != "GET" or not is_linkable(request.scope["route"]):
        return None
    secret = link_secrets.of(parts.store, link.secret_id) if is_id(link.secret_id) else None
    address = f"{quote(request.scope['path'])}?{request.scope['query_string'].decode('latin-1')}"
    if secret is None or not is_genuine(link, secret, address) or link.ends_at <= time.time():
        return None
    key = _maker_of(link, parts)
    return None if key is None else Caller(key.project_id, "read", key.id)


def _maker_of(link: Link, parts: Parts) -> ApiKeyRecord | None:
    """The key that the link was made with, or whose session it was made in, if it is good now."""
    if link.maker_id.startswith("ses_"):
        found = sessions.of_id(parts.store, link.maker_id, parts.settings.session_idle)
        return None if found is None else found[1]
    return projects.active_key(parts.store, link.maker_id)


def _refuse_forged(request: Request, parts: Parts) -> None:
    """Raise 403 for an order that a page of somebody else may have had a browser send with its cookie."""
    if request.method in READING:
        return
    if comes_from_another_page(request.method, request.headers, parts.settings):
        raise ApiError(403, "cross_site_request", "a page of another site sent this request with the session's cookie")
    if not has_csrf_token(request, session_token(request, parts.settings) or ""):
        detail = f"with a session send its `csrf_token` as {CSRF_HEADER}; GET /v1/sessions/current tells it"
        raise ApiError(403, "csrf_token_missing", detail)


def _refuse_lesser(caller: Caller, wanted: Scope) -> None:
    if SCOPES.index(caller.scope) < SCOPES.index(wanted):
        raise ApiError(
            403,
            "insufficient_scope",
            f"this asks for a key with the scope {wanted}, and {caller.key_id} has {caller.scope}",
            headers={"WWW-Authenticate": f'{CHALLENGE}, error="insufficient_scope", scope="{wanted}"'},
        )


def _is_the_deed_of(request: Request, project_id: str, key_id: str | None) -> None:
    """Say in whose name the request is, so that the store writes down what it changes; to look is no deed."""
    deed, route = audit.current.get(), request.scope["route"]
    if deed is None or not is_deed(route, request.method):
        return
    deed.action = f"{request.method} {route.path}"
    deed.object_ids = [one for name, one in request.path_params.items() if name.endswith("_id") and is_id(one)]
    deed.project_id, deed.key_id = project_id, key_id


CallerDep = Annotated[Caller, Depends(current_caller)]


def current_project(caller: CallerDep) -> str:
    """Id of the caller's project."""
    return caller.project_id


ProjectDep = Annotated[str, Depends(current_project)]
