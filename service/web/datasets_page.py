"""Data sets: bring one, see what the check found, and start a job with it."""

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Response

from service.web.asking import Api, ApiDep, part
from service.web.rendering import PagesDep

AT_ONCE = 50
PAIRS_AT_ONCE = 20
NAMED = 6  # rows of a problem whose pictures stand beside it

router = APIRouter(include_in_schema=False)


@router.get("/datasets")
async def show_datasets(pages: PagesDep, api: ApiDep, after: str = "") -> Response:
    datasets = await api.get("/v1/datasets", limit=AT_ONCE, after=after)
    return await pages.show("datasets.html", datasets=datasets, max_bytes=pages.settings.max_upload_bytes)


@router.get("/datasets/{dataset_id}")
async def show_dataset(pages: PagesDep, api: ApiDep, dataset_id: str, problem: str = "", row: str = "") -> Response:
    """What the check found, with pictures of the rows that it names; and the rows, from a row on, all or those with a problem."""
    path = f"/v1/datasets/{part(dataset_id)}"
    dataset = await api.get(path)
    report = await api.get_or_none(f"{path}/report") or {}
    first = int(row) if row.isdecimal() and 1 < int(row) <= report.get("num_rows", 0) else None
    return await pages.show(
        "dataset.html",
        dataset=dataset,
        report=report,
        facts=_facts(report),
        unpaired=report.get("kind") == "unpaired",
        named=await _named(api, path, dataset, report),
        pairs=await _pairs(api, path, dataset, problem=problem, first=first),
        chosen=problem,
        from_row=first,
        before=max(1, first - PAIRS_AT_ONCE) if first and not problem else None,
    )


async def _pairs(
    api: Api, path: str, dataset: Mapping[str, Any], *, problem: str = "", first: int | None, limit: int = PAIRS_AT_ONCE
) -> dict[str, Any] | None:
    """A page of its rows; None where nothing of it is kept to be browsed."""
    if not dataset["browsing_bytes"]:
        return None
    return await api.get(f"{path}/pairs", problem=problem, after=str(first - 1) if first else "", limit=limit)


async def _named(
    api: Api, path: str, dataset: Mapping[str, Any], report: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Of each kind of problem the first rows that the report names."""
    found: dict[str, list[dict[str, Any]]] = {}
    for one in report.get("problems", ()):
        pairs = await _pairs(api, path, dataset, problem=one["code"], first=None, limit=NAMED) if one["rows"] else None
        found[one["code"]] = pairs["data"] if pairs else []
    return found


def _facts(report: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a report that stand by themselves."""
    return {
        name: value for name, value in report.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }
