"""Files that are uploaded, stored, and then checked by a worker: what the routes of data sets and of weights have in common."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from fastapi import Query, Request
from fastapi.concurrency import run_in_threadpool
from pydantic import TypeAdapter, ValidationError

from service.api.context import Parts
from service.api.idempotency import IN_FLIGHT
from service.api.problems import problems
from service.api.schemas.texts import Text
from service.api.uploads import Upload
from service.api.waiting import LONGEST_WAIT_SECONDS, wait_until
from service.errors import field_problems, invalid_request
from service.store import datasets, keys
from service.store.records.base import JobError
from service.store.records.uploads import DatasetRecord, DatasetState
from service.store.unavailable import ObjectsUnavailable

BEGINNING_BYTES = 16
END_OF_CHECK: tuple[DatasetState, ...] = ("ready", "failed")

WaitForCheck = Annotated[
    float,
    Query(ge=0, le=LONGEST_WAIT_SECONDS, description="Seconds to wait for the end of the check before answering."),
]

T = TypeVar("T")

_name: TypeAdapter[str] = TypeAdapter(Text)


# --- what the routes say of themselves -----------------------------------------------------------------------------


def form_of(file: str, more: Mapping[str, Any]) -> dict[str, Any]:
    """The body for `openapi_extra`: the form is read as it arrives, which FastAPI knows nothing of."""
    fields = {
        "file": {"type": "string", "format": "binary", "description": file},
        "name": {"type": "string", "maxLength": 200, "description": "A name for people."},
        **more,
    }
    schema = {"type": "object", "required": ["file"], "additionalProperties": False, "properties": fields}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


def created(location: str) -> dict[int | str, Any]:
    """The answers to an upload; `location` says what the header of its name leads to."""
    headers = {"Location": {"description": location, "schema": {"type": "string"}}}
    return {201: {"headers": headers}, **IN_FLIGHT, **problems(408, 413, 507)}


# --- the form ------------------------------------------------------------------------------------------------------


def checked(adapter: TypeAdapter[T], field: str, value: Any) -> T:
    """The value of a field of the form; 422 that points into it."""
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        found = field_problems(error, None)
        raise invalid_request(
            [one.model_copy(update={"pointer": f"/{field}{one.pointer}"}) for one in found]
        ) from error


def name_of(upload: Upload) -> str | None:
    return checked(_name, "name", upload.fields["name"]) if "name" in upload.fields else None


def same_request(upload: Upload, name: str | None) -> dict[str, Any]:
    """What makes two uploads under one key the same."""
    return {"sha256": upload.sha256, "filename": upload.filename, "name": name}


def beginning_of(upload: Upload) -> bytes:
    """By which kinds of files are told apart."""
    with upload.path.open("rb") as file:
        return file.read(BEGINNING_BYTES)


# --- the store and the check ---------------------------------------------------------------------------------------


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
    """Why the file never came to the object store, and whether a second try is worth its bytes now."""
    known = error if isinstance(error, ObjectsUnavailable) else None
    return JobError(
        code="upload_not_stored",
        message=f"the file was not stored: {known.told}" if known else "the object store did not take the file",
        category="system",
        retryable=True,
        hint="Upload it again." if known is None or known.heals else "Upload it again when the operator has mended it.",
    )


async def found_after(wait: float, find: Callable[[], DatasetRecord], parts: Parts, request: Request) -> DatasetRecord:
    """What `find` finds: at once, or with `wait` when its check is over or so many seconds have passed."""
    found = await run_in_threadpool(find)
    if not wait or found.state in END_OF_CHECK:
        return found
    await wait_until(parts.datasets_lookout, found.id, found.state, END_OF_CHECK.__contains__, wait, request)
    return await run_in_threadpool(find)
