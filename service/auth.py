"""Who asks: an API key's project, or the default project where the operator asks for no keys."""

from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from service.api.context import PartsDep
from service.errors import ApiError
from service.store import projects

bearer = HTTPBearer(
    auto_error=False,
    scheme_name="ApiKey",
    description="A project's key as `Authorization: Bearer KEY`. A server that runs embedded asks for none.",
)


def current_project(
    parts: PartsDep, credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]
) -> str:
    """Id of the caller's project; raises 401 where a key is required and none that is valid was sent."""
    if not parts.settings.api_keys_required:
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
