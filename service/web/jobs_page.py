"""All jobs, newest first."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from service.store.states import STATES
from service.web.asking import ApiDep
from service.web.rendering import PagesDep

AT_ONCE = 50

router = APIRouter(include_in_schema=False)


@router.get("/")
async def show_jobs(
    pages: PagesDep,
    api: ApiDep,
    status: Annotated[list[str] | None, Query()] = None,
    method: str = "",
    model: str = "",
    metadata: str = "",
    after: str = "",
) -> Response:
    """A page of the table; `metadata` is `key=value`."""
    filters: dict[str, Any] = {"status": status or None, "method": method, "model": model}
    key, has_pair, value = metadata.partition("=")
    if has_pair:
        filters[f"metadata[{key.strip()}]"] = value.strip()
    jobs = await api.get("/v1/jobs", limit=AT_ONCE, after=after, **filters)
    methods = await api.get("/v1/methods")
    chosen = {"status": status or [], "method": method, "model": model, "metadata": metadata}
    return await pages.show(
        "jobs.html",
        jobs=jobs,
        states=STATES,
        methods=[one["id"] for one in methods["data"]],
        chosen=chosen,
        is_filtered=any(chosen.values()),
        after=after,
    )
