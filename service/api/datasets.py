"""Data sets: upload one, watch it being checked, read what the check found."""

import json
from functools import partial

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import TypeAdapter

from alignment_core.reports import DatasetReport
from alignment_core.spec import ColumnMapping
from alignment_core.spec.sources import OnBadRow
from service.api.checked_uploads import (
    WaitForCheck,
    beginning_of,
    checked,
    created,
    form_of,
    found_after,
    name_of,
    same_request,
    store_upload,
)
from service.api.context import Parts, PartsDep
from service.api.idempotency import OnceDep
from service.api.lookup import DatasetDep, DatasetPath, dataset_or_404
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.routers import api_router
from service.api.schemas.datasets import Dataset
from service.api.uploads import Upload, receive
from service.auth import ProjectDep
from service.errors import ApiError, FieldProblem, invalid_request
from service.store import datasets

router = api_router(prefix="/v1/datasets", tags=["datasets"], responses=problems(401, 403, 422, 500, 503))

UPLOAD_PATH = "/v1/datasets"

# The first bytes say what a file is; its name is only a claim.
SUFFIXES = {b"PAR1": ".parquet", b"PK\x03\x04": ".zip"}

FORM = form_of(
    "A parquet file, or a zip: of CSV, TSV, jsonl or JSON with images beside, of parquet shards, or of Arrow files.",
    {
        "on_bad_row": {
            "type": "string",
            "enum": ["fail", "drop"],
            "default": "fail",
            "description": "Whether a row with an error makes the data set unusable, or is left out, counted and named.",
        },
        "columns": {
            "type": "string",
            "maxLength": 4096,
            "description": "JSON: which column is what, where its name does not say so, as role to column, such "
            'as `{"prompt": "caption", "chosen": "good", "rejected": "bad"}`.',
        },
    },
)

_columns: TypeAdapter[ColumnMapping] = TypeAdapter(ColumnMapping)
_on_bad_row: TypeAdapter[OnBadRow] = TypeAdapter(OnBadRow)
TEXT_FIELDS = frozenset({"name", "columns", "on_bad_row"})


@router.post(
    "",
    status_code=201,
    response_model=Dataset,
    summary="Upload a data set",
    response_description="The data set, being checked",
    responses=created("Where the new data set is."),
    openapi_extra=FORM,
)
async def create_dataset(request: Request, project_id: ProjectDep, parts: PartsDep, once: OnceDep) -> Response:
    """Store preference pairs and have them checked in the background.

    Ask for the data set with `?wait=60` until it is `ready` or `failed`; its report names the rows that were not as expected. With curl:
    `curl -F file=@pairs.parquet http://localhost:8000/v1/datasets`
    """
    limit = parts.settings.max_upload_bytes
    async with receive(request, parts.settings, limit, TEXT_FIELDS) as upload:
        name = name_of(upload)
        columns = _checked_columns(upload.fields)
        on_bad_row = checked(_on_bad_row, "on_bad_row", upload.fields.get("on_bad_row", "fail"))
        refuse_unknown_format(beginning_of(upload), upload.filename)

        def create(dataset_id: str | None) -> Dataset:
            return made_dataset(
                parts, project_id, upload, dataset_id, name=name, columns=columns, on_bad_row=on_bad_row
            )

        same = same_request(upload, name)
        if columns is not None:
            same["columns"] = json.dumps(columns, sort_keys=True)
        if on_bad_row != "fail":
            same["on_bad_row"] = on_bad_row
        return await run_in_threadpool(once, "ds", UPLOAD_PATH, same, create)


def _checked_columns(fields: dict[str, str]) -> ColumnMapping | None:
    if "columns" not in fields:
        return None
    try:
        columns = json.loads(fields["columns"])
    except (ValueError, RecursionError) as error:
        message = f'expected JSON of role to column, such as {{"prompt": "caption"}}: {error}'
        raise invalid_request([FieldProblem(pointer="/columns", code="json_invalid", message=message)]) from error
    return checked(_columns, "columns", columns)


def made_dataset(
    parts: Parts,
    project_id: str,
    upload: Upload,
    dataset_id: str | None,
    *,
    name: str | None,
    columns: ColumnMapping | None,
    on_bad_row: OnBadRow,
    upload_id: str | None = None,
) -> Dataset:
    """A data set of a file that has arrived, in one body or as the upload `upload_id`; 422 for one of another form."""
    suffix = refuse_unknown_format(beginning_of(upload), upload.filename)
    dataset = datasets.create(
        parts.store,
        project_id=project_id,
        filename=upload.filename,
        size_bytes=upload.size_bytes,
        name=name,
        columns=columns,
        on_bad_row=on_bad_row,
        dataset_id=dataset_id,
        upload_id=upload_id,
    )
    return Dataset.of(store_upload(parts, dataset, upload, suffix))


def refuse_unknown_format(beginning: bytes, filename: str) -> str:
    """The suffix of what begins so; 422 for what is no data set."""
    magic = beginning[:4]
    if magic not in SUFFIXES:
        message = f"{filename!r} is neither a parquet file nor a zip: zip the folder with its table (CSV, TSV, jsonl, JSON, parquet or Arrow) and its images"
        raise invalid_request([FieldProblem(pointer="/file", code="unknown_format", message=message)])
    return SUFFIXES[magic]


@router.get("", summary="List data sets")
def list_datasets(project_id: ProjectDep, parts: PartsDep, paging: PagingDep) -> Page[Dataset]:
    """The project's data sets, newest first."""
    page = datasets.list_datasets(parts.store, project_id, after_id=paging.after, limit=paging.limit)
    return paging.page([Dataset.of(one) for one in page.data], has_more=page.has_more)


@router.get("/{dataset_id}", summary="Look at a data set, or wait for it", responses=missing("dataset", "ds"))
async def get_dataset(
    dataset_id: DatasetPath,
    request: Request,
    project_id: ProjectDep,
    parts: PartsDep,
    wait: WaitForCheck = 0,
) -> Dataset:
    """A data set and whether it can be used.

    With `wait` the answer comes when the data set is `ready` or `failed`, and after so many seconds in any case.
    """
    find = partial(dataset_or_404, parts.store, project_id, dataset_id)
    return Dataset.of(await found_after(wait, find, parts, request))


@router.get(
    "/{dataset_id}/report",
    summary="Read a data set's preflight report",
    responses=problem(
        404,
        "report_not_found",
        "data set 'ds_01kaf0f6a2c4e6g8j0m2p4r6t8' has no report: it is checking",
        when="No such data set in this project, or it has not been checked, or it could not even be read",
    ),
)
def get_dataset_report(dataset: DatasetDep) -> DatasetReport:
    """What is in the data, counted, and which rows are not as expected, by number."""
    if dataset.report is None:
        why = f"it is {dataset.state}" if dataset.error is None else dataset.error.message
        raise ApiError(404, "report_not_found", f"data set {dataset.id!r} has no report: {why}")
    return DatasetReport.model_validate(dataset.report)
