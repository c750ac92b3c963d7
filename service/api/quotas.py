"""What the project may take, and what is left of it."""

from service.api.context import Parts, PartsDep
from service.api.paging import Page
from service.api.problems import problems
from service.api.routers import api_router
from service.api.schemas.quotas import Quota
from service.auth import ProjectDep
from service.rate_limits import headers_of
from service.store import quotas

router = api_router(prefix="/v1/quotas", tags=["quotas"], responses=problems(401, 422, 500, 503))

RATE_LIMIT_HEADERS = {
    name: {"description": description, "schema": {"type": "string"}}
    for name, description in (
        ("RateLimit-Policy", 'Jobs that may be submitted in an hour, where that has a limit: `"submits";q=60;w=3600`.'),
        (
            "RateLimit",
            'How many of them are left, and in how many seconds there are all of them again: `"submits";r=59;t=1800`.',
        ),
    )
}


@router.get("", summary="Look at the project's quotas")
def list_quotas(project_id: ProjectDep, parts: PartsDep) -> Page[Quota]:
    """What the project may take and what it has taken: jobs, submits of the hour, GPU-hours of the month, bytes.

    The server's owner sets them. A request that needs more than there is left is refused: with 429 for `jobs` and `submits`, with
    403 for `gpu_hours` and `bytes`; its `quota` says which one, how much is used and when there is more.
    """
    found = [Quota.of(one) for one in quotas.standings(parts.store, project_id)]
    return Page(data=found, has_more=False, first_id=found[0].id, last_id=found[-1].id)


def submit_headers(parts: Parts, project_id: str) -> dict[str, str]:
    """What is left of the hour's submits; nothing where they have no limit."""
    found = quotas.submits_of(parts.store, project_id)
    return {} if found is None else headers_of(found)
