"""Data sets: bring one, see what the check found, and start a job with it."""

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Response

from service.web.asking import Api, ApiDep, part
from service.web.rendering import PagesDep

AT_ONCE = 50
PAIRS_AT_ONCE = 20
LONGEST_ROW = 12  # digits
NAMED = 6  # rows of a problem whose pictures stand beside it
OF_THE_OTHER_KIND = {
    "pairs": {"num_likes", "num_dislikes"},
    "unpaired": {"num_groups", "num_ties", "num_soft_labels", "num_swapped"},
}

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
    first = _first(row, report.get("num_rows", 0))
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
    return await api.get_or_none(f"{path}/pairs", problem=problem, after=str(first - 1) if first else "", limit=limit)


async def _named(
    api: Api, path: str, dataset: Mapping[str, Any], report: Mapping[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Of each kind of problem the first rows that the report names."""
    codes = [one["code"] for one in report.get("problems", ()) if one["rows"]]
    asked = (_pairs(api, path, dataset, problem=code, first=None, limit=NAMED) for code in codes)
    found = await asyncio.gather(*asked)
    return {code: pairs["data"] for code, pairs in zip(codes, found, strict=True) if pairs is not None}


def _first(typed: str, num_rows: int) -> int | None:
    """The row that somebody typed to begin with; None for the first one, and for what is none."""
    row = int(typed) if typed.isdecimal() and len(typed) < LONGEST_ROW else 1
    return row if 1 < row <= num_rows else None


def _facts(report: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a report that stand by themselves, but for those that its kind of data cannot have."""
    left_out = OF_THE_OTHER_KIND.get(report.get("kind", ""), set()) | {"size_bytes"}  # which is said above
    return {
        name.removeprefix("num_"): value
        for name, value in report.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in left_out
    }
