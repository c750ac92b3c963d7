"""Data sets: bring one, see what the check found, and start a job with it."""

from typing import Any

from fastapi import APIRouter, Response

from service.web.asking import ApiDep, part
from service.web.rendering import PagesDep

AT_ONCE = 50

router = APIRouter(include_in_schema=False)


@router.get("/datasets")
async def show_datasets(pages: PagesDep, api: ApiDep, after: str = "") -> Response:
    datasets = await api.get("/v1/datasets", limit=AT_ONCE, after=after)
    return await pages.show("datasets.html", datasets=datasets, max_bytes=pages.settings.max_upload_bytes)


@router.get("/datasets/{dataset_id}")
async def show_dataset(pages: PagesDep, api: ApiDep, dataset_id: str) -> Response:
    """What the check found, rows named."""
    path = f"/v1/datasets/{part(dataset_id)}"
    dataset = await api.get(path)
    report = await api.get_or_none(f"{path}/report")
    return await pages.show("dataset.html", dataset=dataset, report=report, facts=_facts(report or {}))


def _facts(report: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a report that stand by themselves."""
    return {
        name: value for name, value in report.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }
