"""Data sets: upload one, watch it being checked, read what the check found."""

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import TypeAdapter, ValidationError

from alignment_core.reports import DatasetReport
from alignment_core.spec import ColumnMapping
from alignment_core.spec.sources import OnBadRow
from service.api.context import Parts, PartsDep
from service.api.idempotency import IN_FLIGHT, OnceDep
from service.api.lookup import DatasetDep, DatasetPath, dataset_or_404
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.schemas.datasets import Dataset
from service.api.schemas.jobs import Text
from service.api.uploads import Upload, receive
from service.api.waiting import LONGEST_WAIT_SECONDS, wait_until
from service.auth import ProjectDep
from service.errors import ApiError, FieldProblem, field_problems, invalid_request
from service.settings import Settings
from service.store import datasets, keys
from service.store.records import DatasetRecord, DatasetState, JobError
from service.store.unavailable import ObjectsUnavailable

router = APIRouter(prefix="/v1/datasets", tags=["datasets"], responses=problems(401, 403, 422, 500, 503))

UPLOAD_PATH = "/v1/datasets"
END_OF_CHECK: tuple[DatasetState, ...] = ("ready", "failed")

# The first bytes say what a file is; its name is only a claim.
SUFFIXES = {b"PAR1": ".parquet", b"PK\x03\x04": ".zip"}

FORM = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "A parquet file, or a zip: of CSV, TSV, jsonl or JSON with images beside, of parquet shards, or of Arrow files.",
                        },
                        "name": {"type": "string", "maxLength": 200, "description": "A name for people."},
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
                },
            }
        },
    }
}

T = TypeVar("T")

name_of_upload: TypeAdapter[str] = TypeAdapter(Text)
_columns: TypeAdapter[ColumnMapping] = TypeAdapter(ColumnMapping)
_on_bad_row: TypeAdapter[OnBadRow] = TypeAdapter(OnBadRow)
TEXT_FIELDS = frozenset({"name", "columns", "on_bad_row"})


@router.post(
    "",
    status_code=201,
    response_model=Dataset,
    summary="Upload a data set",
    response_description="The data set, being checked",
    responses={
        201: {"headers": {"Location": {"description": "Where the new data set is.", "schema": {"type": "string"}}}},
        **IN_FLIGHT,
        **problems(413, 507),
    },
    openapi_extra=FORM,
)
async def create_dataset(request: Request, project_id: ProjectDep, parts: PartsDep, once: OnceDep) -> Response:
    """Store preference pairs and have them checked in the background.

    Ask for the data set with `?wait=60` until it is `ready` or `failed`; its report names the rows that were not as expected. With curl:
    `curl -F file=@pairs.parquet http://localhost:8000/v1/datasets`
    """
    limit = parts.settings.max_upload_bytes
    async with receive(request, uploads_folder(parts.settings), limit, TEXT_FIELDS) as upload:
        name = checked(name_of_upload, "name", upload.fields["name"]) if "name" in upload.fields else None
        columns = _checked_columns(upload.fields)
        on_bad_row = checked(_on_bad_row, "on_bad_row", upload.fields.get("on_bad_row", "fail"))
        suffix = _suffix(upload)

        def create(dataset_id: str | None) -> Dataset:
            dataset = datasets.create(
                parts.store,
                project_id=project_id,
                filename=upload.filename,
                name=name,
                columns=columns,
                on_bad_row=on_bad_row,
                dataset_id=dataset_id,
            )
            return Dataset.of(store_upload(parts, dataset, upload, suffix))

        same_request = {"sha256": upload.sha256, "filename": upload.filename, "name": name}
        if columns is not None:
            same_request["columns"] = json.dumps(columns, sort_keys=True)
        if on_bad_row != "fail":
            same_request["on_bad_row"] = on_bad_row
        return await run_in_threadpool(once, "ds", UPLOAD_PATH, same_request, create)


def uploads_folder(settings: Settings) -> Path:
    """Where files lie until the object store has them."""
    return settings.data_dir / "uploads"


def store_upload(parts: Parts, dataset: DatasetRecord, upload: Upload, suffix: str) -> DatasetRecord:
    """Give the file to the object store, and have a worker check it."""
    key = keys.dataset_key(dataset.project_id, dataset.id, suffix)
    try:
        parts.objects.put_file(key, upload.path)
    except BaseException as error:
        datasets.upload_failed(parts.store, dataset.id, _not_stored(error))
        raise
    stored = datasets.uploaded(
        parts.store, dataset.id, size_bytes=upload.size_bytes, sha256=upload.sha256, object_key=key
    )
    parts.bell.ring_dataset(stored.id)
    return stored


def _not_stored(error: BaseException) -> JobError:
    """Why the data set never came to the object store, and whether a second try is worth its bytes now."""
    known = error if isinstance(error, ObjectsUnavailable) else None
    return JobError(
        code="upload_not_stored",
        message=f"the file was not stored: {known.told}" if known else "the object store did not take the file",
        category="system",
        retryable=True,
        hint="Upload it again." if known is None or known.heals else "Upload it again when the operator has mended it.",
    )


def _checked_columns(fields: dict[str, str]) -> ColumnMapping | None:
    if "columns" not in fields:
        return None
    try:
        columns = json.loads(fields["columns"])
    except (ValueError, RecursionError) as error:
        message = f'expected JSON of role to column, such as {{"prompt": "caption"}}: {error}'
        raise invalid_request([FieldProblem(pointer="/columns", code="json_invalid", message=message)]) from error
    return checked(_columns, "columns", columns)


def checked(adapter: TypeAdapter[T], field: str, value: Any) -> T:
    """The value of a field of the form; 422 that points into it."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        found = field_problems(error, None)
        raise invalid_request(
            [one.model_copy(update={"pointer": f"/{field}{one.pointer}"}) for one in found]
        ) from error


def _suffix(upload: Upload) -> str:
    with upload.path.open("rb") as file:
        magic = file.read(4)
    if magic not in SUFFIXES:
        message = f"{upload.filename!r} is neither a parquet file nor a zip: zip the folder with its table (CSV, TSV, jsonl, JSON, parquet or Arrow) and its images"
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
    wait: Annotated[
        float,
        Query(ge=0, le=LONGEST_WAIT_SECONDS, description="Seconds to wait for the end of the check before answering."),
    ] = 0,
) -> Dataset:
    """A data set and whether it can be used.

    With `wait` the answer comes when the data set is `ready` or `failed`, and after so many seconds in any case.
    """
    dataset = await run_in_threadpool(dataset_or_404, parts.store, project_id, dataset_id)
    if wait and dataset.state not in END_OF_CHECK:
        over = END_OF_CHECK.__contains__
        await wait_until(parts.datasets_lookout, dataset.id, dataset.state, over, wait, request)
        dataset = await run_in_threadpool(dataset_or_404, parts.store, project_id, dataset_id)
    return Dataset.of(dataset)


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
