"""Who asks: an API key's project, or the default project where the operator asks for no keys."""

from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.api.browsers import comes_from_another_page
from service.api.context import PartsDep
from service.errors import ApiError
from service.store import projects

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    description="A project's key as `Authorization: Bearer KEY`. A server that runs embedded asks for none.",
)


def current_project(
    request: Request, parts: PartsDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> str:
    """Id of the caller's project; raises 401 where a key is required and none that is valid was sent.

    A server without keys takes everybody for its owner, the pages that its owner's browser shows among them: those are
    refused with 403 where they would change something.
    """
    if not parts.settings.api_keys_required:
        if comes_from_another_page(request.method, request.headers, parts.settings):
            detail = "a page of another site sent this request, and this server asks for no key"
            raise ApiError(403, "cross_site_request", f"{detail}; ATTUNE_CORS_ORIGINS names pages that may")
        return projects.DEFAULT_PROJECT_ID
    project = None if credentials is None else projects.authenticate(parts.store, credentials.credentials)
    if project is None:
        raise ApiError(
            401,
            "unauthorized",
            "send a valid API key as `Authorization: Bearer KEY`",
            headers={"WWW-Authenticate": 'Bearer realm="attune"'},
        )
    return project.id


ProjectDep = Annotated[str, Depends(current_project)]
