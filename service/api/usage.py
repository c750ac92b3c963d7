"""What the project's jobs took, summed up."""

from typing import Annotated

from fastapi import Query

from service.api.context import PartsDep
from service.api.moments import Moment
from service.api.problems import problems
from service.api.routers import api_router
from service.api.schemas.usage import ProjectUsage
from service.auth import ProjectDep
from service.store import usage

router = api_router(prefix="/v1/usage", tags=["quotas"], responses=problems(401, 422, 500, 503))


@router.get("", summary="Sum up what the project's jobs took")
def get_usage(
    project_id: ProjectDep,
    parts: PartsDep,
    since: Annotated[Moment | None, Query(description="Attempts that ended at this time or later (RFC 3339).")] = None,
    until: Annotated[Moment | None, Query(description="Attempts that ended before this time (RFC 3339).")] = None,
) -> ProjectUsage:
    """Seconds by phase and of processes, of every attempt that ended in this time, lost ones and those of deleted jobs too.

    An attempt counts whole where it ended, so times that lie side by side add up. One that still runs is at its job.
    """
    return ProjectUsage.of(usage.of_project(parts.store, project_id, since, until), since, until)
