"""The audit log of the caller's project, to read. There is no way to write it but to do something."""

from typing import Annotated

from fastapi import Query

from service.api.context import PartsDep
from service.api.moments import Moment
from service.api.paging import Page, PagingDep
from service.api.problems import problems
from service.api.routers import api_router
from service.api.schemas.audit import AuditEntry
from service.auth import ProjectDep
from service.scopes import needs
from service.store.audit_lists import list_entries
from service.store.records.projects import Outcome

router = api_router(
    prefix="/v1/audit", tags=["audit"], responses=problems(401, 403, 422, 500, 503), dependencies=[needs("admin")]
)

IdFilter = Annotated[str | None, Query(pattern=r"^[a-z]{2,4}_[0-9a-z]{26}$")]


@router.get("", summary="Read the audit log")
def list_audit(
    project_id: ProjectDep,
    parts: PartsDep,
    paging: PagingDep,
    key_id: Annotated[IdFilter, Query(description="Only what was done with this key.")] = None,
    object_id: Annotated[IdFilter, Query(description="Only what was done to this thing, or made it.")] = None,
    action: Annotated[
        str | None, Query(max_length=200, pattern=r"^[^\x00]*$", description="Only this action: `POST /v1/jobs`.")
    ] = None,
    outcome: Annotated[Outcome | None, Query(description="Only what ended so.")] = None,
    since: Annotated[Moment | None, Query(description="Not before this time (RFC 3339).")] = None,
    until: Annotated[Moment | None, Query(description="Before this time (RFC 3339).")] = None,
) -> Page[AuditEntry]:
    """Who did what in this project, newest first: everything that changed it or would have, with what came of it.

    Reading is not written down. Rows are kept for as long as the server's owner says, and nobody can change them.
    """
    page = list_entries(
        parts.store,
        project_id,
        after_id=paging.after,
        limit=paging.limit,
        key_id=key_id,
        object_id=object_id,
        action=action,
        outcome=outcome,
        since=since,
        until=until,
    )
    return paging.page([AuditEntry.of(one) for one in page.data], has_more=page.has_more)
