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
    """A page of the table; `metadata` is `key=value`, and what is not so filters nothing and is told."""
    filters: dict[str, Any] = {"status": status or None, "method": method, "model": model}
    key, has_value, value = metadata.partition("=")
    is_pair = bool(has_value and key.strip())
    if is_pair:
        filters[f"metadata[{key.strip()}]"] = value.strip()
    problem = "" if is_pair or not metadata.strip() else "A key and its value, as in team=design."
    jobs = await api.get("/v1/jobs", limit=AT_ONCE, after=after, **filters)
    methods = await api.get("/v1/methods")
    chosen = {"status": status or [], "method": method, "model": model, "metadata": metadata}
    return await pages.show(
        "jobs.html",
        status=422 if problem else 200,
        jobs=jobs,
        states=STATES,
        methods=[one["id"] for one in methods["data"]],
        chosen=chosen,
        problem=problem,
        is_filtered=any(chosen.values()),
        after=after,
    )
