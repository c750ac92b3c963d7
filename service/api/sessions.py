"""Sessions of browsers: sign in with a key, look, sign out, end those of others."""

import math
from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Path, Request, Response

from service.api.context import PartsDep
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.routers import api_router
from service.api.schemas.deleted import Deleted
from service.api.schemas.sessions import SESSION_ID, CurrentSession, Session
from service.auth import Caller, CallerDep
from service.cookies import csrf_token, forget_session, session_token, set_session
from service.errors import ApiError, not_found
from service.scopes import needs
from service.sign_ins import network_of
from service.store import projects, sessions
from service.store.ids import is_id
from service.store.projects import prefix_of

router = api_router(prefix="/v1/sessions", tags=["sessions"], responses=problems(401, 403, 422, 500, 503))

SessionPath = Annotated[str, Path(description="Id of a session.", examples=[SESSION_ID])]
ANY_KEY = needs("read", is_deed=True)
NO_SESSION = problem(
    404, "session_not_found", "this request was sent without a session", when="The request came without a session"
)
TOO_MANY = problem(429, "too_many_sign_ins", "at most 10 sign-ins a minute are looked at", when="Too many tries")
NO_KEYS = problem(
    409, "no_keys_here", "this server asks for no key, so there is nothing to sign in to", when="Nobody has to sign in"
)


def _limit_sign_ins(request: Request, parts: PartsDep) -> None:
    """Raise 429 before the key is looked at, where there were too many tries."""
    if not parts.settings.api_keys_required:
        return
    key = request.headers.get("authorization", "").partition(" ")[2].strip()
    address = network_of(request.client.host if request.client else "")
    wait = parts.sign_ins.seconds_to_wait(f"address {address}", f"key {prefix_of(key)}")
    if wait > 0:
        detail = f"at most {parts.settings.sign_ins_per_minute} sign-ins a minute are looked at"
        raise ApiError(429, "too_many_sign_ins", detail, headers={"Retry-After": str(math.ceil(wait))})


@router.post(
    "",
    status_code=201,
    summary="Sign in",
    response_description="The session; its cookie is in `Set-Cookie`",
    responses={
        201: {"headers": {"Set-Cookie": {"description": "The session's token.", "schema": {"type": "string"}}}},
        **NO_KEYS,
        **TOO_MANY,
    },
    dependencies=[Depends(_limit_sign_ins), ANY_KEY],
)
def open_session(request: Request, response: Response, caller: CallerDep, parts: PartsDep) -> CurrentSession:
    """Have a browser remembered: `Authorization: Bearer KEY` once, and from then on a cookie that no script can read.

    What the key may, the session may. It ends when it is signed out or not used for a while, after a time in any case, and when its key is
    revoked, rotated or expired. With everything but GET and HEAD send its `csrf_token` as `X-CSRF-Token`.
    """
    if caller.key_id is None:
        raise ApiError(409, "no_keys_here", "this server asks for no key, so there is nothing to sign in to")
    key = projects.active_key(parts.store, caller.key_id)
    if caller.session_id is not None or key is None:
        raise ApiError(401, "unauthorized", "a session opens no other: send an API key as `Authorization: Bearer KEY`")
    lifetime = timedelta(seconds=parts.settings.session_seconds)
    remote = request.client.host if request.client else None
    token, made = sessions.open_session(parts.store, key, lifetime=lifetime, remote=remote)
    set_session(request, response, parts.settings, token, int((made.expires_at - made.created_at).total_seconds()))
    return CurrentSession.current(made, key, csrf_token(token))


@router.get("/current", summary="Look at the own session", responses=NO_SESSION)
def get_current_session(request: Request, caller: CallerDep, parts: PartsDep) -> CurrentSession:
    """Who is signed in, until when, and the CSRF token: what a page asks for when it is loaded."""
    token = session_token(request, parts.settings)
    if caller.session_id is None or token is None:
        raise ApiError(404, "session_not_found", "this request was sent without a session")
    found = sessions.of_token(parts.store, token, parts.settings.session_idle)
    if found is None:  # ended since it was looked up
        raise ApiError(404, "session_not_found", "the session has just ended")
    return CurrentSession.current(*found, csrf_token(token))


@router.delete("/current", summary="Sign out", responses=NO_SESSION, dependencies=[ANY_KEY])
def end_current_session(request: Request, response: Response, caller: CallerDep, parts: PartsDep) -> Deleted:
    """End the own session, and have the browser forget its cookie."""
    if caller.session_id is None:
        raise ApiError(404, "session_not_found", "this request was sent without a session")
    sessions.end(parts.store, caller.project_id, caller.session_id)
    forget_session(request, response, parts.settings)
    return Deleted(id=caller.session_id, object="session")


@router.get("", summary="List sessions")
def list_sessions(caller: CallerDep, parts: PartsDep, paging: PagingDep) -> Page[Session]:
    """Who is signed in, newest first: with the caller's own key, or for an admin with any key of the project."""
    page = sessions.page_of(
        parts.store,
        caller.project_id,
        parts.settings.session_idle,
        key_id=_own(caller),
        after_id=paging.after,
        limit=paging.limit,
    )
    return paging.page([Session.of(one) for one in page.data], has_more=page.has_more)


@router.delete("/{session_id}", summary="End a session", responses=missing("session", "ses"), dependencies=[ANY_KEY])
def end_session(session_id: SessionPath, caller: CallerDep, parts: PartsDep) -> Deleted:
    """Sign a browser out from afar: one of the caller's own key, or for an admin one of any key of the project."""
    is_there = is_id(session_id) and sessions.end(parts.store, caller.project_id, session_id, key_id=_own(caller))
    if not is_there:
        raise not_found("session", session_id)
    return Deleted(id=session_id, object="session")


def _own(caller: Caller) -> str | None:
    """The key whose sessions the caller may see; None for all of the project."""
    return None if caller.scope == "admin" else caller.key_id
