"""Keys of the caller's project: make, list, look at, rotate, revoke. All of it asks for the scope `admin`."""

from datetime import timedelta
from typing import Annotated

from fastapi import Depends, Path, Response

from service.api.context import Parts, PartsDep
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.routers import api_router
from service.api.schemas.keys import ApiKey, KeyRequest, NewKey, RotateRequest
from service.auth import CallerDep, ProjectDep
from service.errors import ApiError, not_found
from service.scopes import needs
from service.store import projects
from service.store.ids import is_id
from service.store.records.projects import ApiKeyRecord

router = api_router(
    prefix="/v1/keys", tags=["keys"], responses=problems(401, 403, 422, 500, 503), dependencies=[needs("admin")]
)

KeyPath = Annotated[str, Path(description="Id of a key.", examples=["key_01kaf0e4y6z8a0b2c4d6e8f0g2"])]
LOCATION = {201: {"headers": {"Location": {"description": "Where the new key is.", "schema": {"type": "string"}}}}}
ENDED = problem(
    409,
    "key_not_active",
    "key 'key_01kaf0e4y6z8a0b2c4d6e8f0g2' is revoked or expired; make a new one",
    when="The key is revoked or expired",
)


def _key(key_id: KeyPath, project_id: ProjectDep, parts: PartsDep) -> ApiKeyRecord:
    found = projects.get_key(parts.store, project_id, key_id) if is_id(key_id) else None
    if found is None:
        raise not_found("key", key_id)
    return found


KeyDep = Annotated[ApiKeyRecord, Depends(_key)]


@router.post(
    "",
    status_code=201,
    summary="Make a key",
    response_description="The key, with its secret for the only time",
    responses={**LOCATION, **problems(400, 413)},
)
def create_key(body: KeyRequest, caller: CallerDep, parts: PartsDep, response: Response) -> NewKey:
    """Make a key of this project. The secret is in this answer and nowhere else: the database keeps its hash alone.

    For that reason an `Idempotency-Key` is not looked at here.
    """
    lifetime = None if body.expires_in_days is None else timedelta(days=body.expires_in_days)
    secret, made = projects.create_key(parts.store, caller.project_id, body.name, scope=body.scope, lifetime=lifetime)
    return _answer(parts, response, secret, made)


@router.get("", summary="List keys")
def list_keys(project_id: ProjectDep, parts: PartsDep, paging: PagingDep) -> Page[ApiKey]:
    """The project's keys, revoked and expired ones too, newest first."""
    page = projects.page_of_keys(parts.store, project_id, after_id=paging.after, limit=paging.limit)
    return paging.page([ApiKey.of(one) for one in page.data], has_more=page.has_more)


@router.get("/{key_id}", summary="Look at a key", responses=missing("key", "key"))
def get_key(key: KeyDep) -> ApiKey:
    """What it may, until when, and when it was last used."""
    return ApiKey.of(key)


@router.post(
    "/{key_id}/rotate",
    status_code=201,
    summary="Put a new key in a key's place",
    response_description="The new key, with its secret for the only time",
    responses={**LOCATION, **missing("key", "key"), **ENDED, **problems(400, 413)},
)
def rotate_key(key: KeyDep, body: RotateRequest, parts: PartsDep, response: Response) -> NewKey:
    """Make a key like this one, which goes on beside it for `grace_seconds`: time to bring the new one to where it is used."""
    made = projects.rotate_key(parts.store, key.project_id, key.id, timedelta(seconds=body.grace_seconds))
    if made is None:
        raise ApiError(409, "key_not_active", f"key {key.id!r} is revoked or expired; make a new one")
    return _answer(parts, response, *made)


@router.post("/{key_id}/revoke", summary="Revoke a key", responses=missing("key", "key"))
def revoke_key(key: KeyDep, parts: PartsDep) -> ApiKey:
    """Refuse the key from now on, with 401. Asking twice is no error; the key stays in the list."""
    projects.revoke_key(parts.store, key.project_id, key.id)
    found = projects.get_key(parts.store, key.project_id, key.id)
    assert found is not None, "keys are never deleted"
    return ApiKey.of(found)


def _answer(parts: Parts, response: Response, secret: str, made: ApiKeyRecord) -> NewKey:
    response.headers["Location"] = f"{parts.base_url}/v1/keys/{made.id}"
    return NewKey.made(secret, made)
