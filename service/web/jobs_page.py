"""All jobs, newest first, and several of them compared."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from service.store.states import STATES
from service.web.asking import ApiDep, part
from service.web.rendering import PagesDep

AT_ONCE = 50
MOST_COMPARED = 6

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


@router.get("/compare")
async def compare_jobs(
    pages: PagesDep, api: ApiDep, job: Annotated[list[str], Query(max_length=MOST_COMPARED)]
) -> Response:
    """Curves over each other, reports side by side, and of the specs only what differs."""
    jobs = [await api.get(f"/v1/jobs/{part(one)}") for one in dict.fromkeys(job)]
    reports = [await api.get_or_none(f"/v1/jobs/{part(one['id'])}/report") for one in jobs]
    rewards = sorted({reward["name"] for report in reports if report for reward in report["rewards"]})
    return await pages.show(
        "compare.html",
        jobs=jobs,
        reports=reports,
        rewards=rewards,
        differences=differences([one["spec"] for one in jobs]),
    )


def differences(specs: list[dict[str, Any]]) -> list[tuple[str, list[str]]]:
    """The fields in which specs differ, with dots, and what each has there; what one has not is empty."""
    flat = [dict(_leaves(spec)) for spec in specs]
    names = dict.fromkeys(name for spec in flat for name in spec)
    rows = [(name, [spec.get(name, "") for spec in flat]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def _leaves(value: Any, name: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict) and value:
        return [leaf for key, inner in value.items() for leaf in _leaves(inner, f"{name}.{key}".lstrip("."))]
    return [(name, value if isinstance(value, str) else json.dumps(value))]
