"""What a file becomes once all of it has arrived: the same thing as one that came in one body, by the same checks."""

import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, assert_never

from anyio import CapacityLimiter, to_thread
from fastapi import BackgroundTasks, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter
from sqlalchemy.exc import SQLAlchemyError

from service.api import datasets, prompt_sets, weights
from service.api.context import Parts, PartsDep
from service.api.lookup import UploadDep, dataset_or_404, prompt_set_or_404, weights_or_404
from service.api.problems import missing, problem, problems
from service.api.resumable_uploads import UPLOADS_PATH, out_of_place
from service.api.routers import api_router
from service.api.schemas.base import Entry
from service.api.schemas.datasets import Dataset
from service.api.schemas.prompt_sets import PromptSet
from service.api.schemas.uploads import DatasetUpload, PromptSetUpload, UploadRequest, WeightsUpload
from service.api.schemas.weights import Weights
from service.api.upload_pieces import whole
from service.api.uploads import Upload
from service.errors import ApiError, FieldProblem, not_found
from service.prompt_reading import OF_THE_MOMENT
from service.store import uploads
from service.store.records.uploads import UploadPurpose, UploadRecord
from service.store.removals import remove_due

router = api_router(prefix=UPLOADS_PATH, tags=["uploads"], responses=problems(401, 403, 422, 500, 503))

ASK_AGAIN_SECONDS = 1
REFUSED = 422
BEAT_SECONDS = 20.0
AT_ONCE = CapacityLimiter(4)  # each reads and writes a whole file: the threads of all other requests are not theirs
COLLECTIONS: dict[UploadPurpose, str] = {
    "dataset": datasets.UPLOAD_PATH,
    "weights": weights.UPLOAD_PATH,
    "prompt_set": prompt_sets.UPLOAD_PATH,
}
NOT_YET = problem(
    409,
    "upload_incomplete",
    "upload 'upl_01kaf0e4y6b8d0f2h4k6m8p0r2' has 2097152 of 3811204 bytes: send on from there",
    when="Bytes are missing, or another request makes something of it just now (`upload_finishing`, with `Retry-After`)",
)

_asked: TypeAdapter[UploadRequest] = TypeAdapter(UploadRequest)


@router.post(
    "/{upload_id}/finish",
    status_code=201,
    response_model=Dataset | Weights | PromptSet,
    summary="Make of an upload what it is for",
    response_description="The data set or the weights, being checked, or the prompt set",
    responses={
        201: {
            "headers": {"Location": {"description": "Where it is.", "schema": {"type": "string"}}},
        },
        **missing("upload", "upl"),
        **NOT_YET,
        **problems(507),
    },
)
async def finish_upload(upload: UploadDep, parts: PartsDep, background: BackgroundTasks) -> Response:
    """Once all of the file has arrived: the same answer, checks and refusals as for one that is sent in one body.

    Asking again gives the same thing again, or the same refusal: what was refused with 422 is `refused`, and of its bytes nothing is kept.
    After any other error, and where this machine had not the time or memory to read it, it is tried again.
    """
    at_once = prompt_sets.AT_ONCE if upload.purpose == "prompt_set" else AT_ONCE
    made = await to_thread.run_sync(_finished, parts, upload, limiter=at_once)
    background.add_task(remove_due, parts.store, parts.objects)
    location = f"{parts.base_url}{COLLECTIONS[upload.purpose]}/{made.id}"
    return JSONResponse(made.model_dump(mode="json"), 201, {"Location": location})


def _finished(parts: Parts, upload: UploadRecord) -> Entry:
    try:
        taken = uploads.begin_finish(parts.store, upload.project_id, upload.id)
    except uploads.OutOfPlaceError as error:
        raise _not_yet(error.found) from error
    if taken is None or taken.state in ("finished", "refused"):
        return _ended(parts, upload, taken)
    try:
        with _at_work(parts, taken), whole(parts, taken) as file:
            made = _made(parts, taken, file)
    except BaseException as error:
        now = uploads.get(parts.store, taken.project_id, taken.id)
        if now is None or now.state in ("finished", "refused"):  # by who took this request for one that had died
            return _ended(parts, taken, now)
        if isinstance(error, ApiError) and _is_of_its_bytes(error):
            uploads.refuse(parts.store, taken, _told(error))
        else:
            uploads.give_back(parts.store, taken)
        raise
    uploads.finish(parts.store, taken)
    return made


def _ended(parts: Parts, upload: UploadRecord, now: UploadRecord | None) -> Entry:
    """What it has become; 404 where it is gone, and 422 where it was refused."""
    if now is None:
        raise not_found("upload", upload.id)
    if now.refusal is not None:
        raise _refused(now.refusal)
    return _became(parts, now)


@contextmanager
def _at_work(parts: Parts, upload: UploadRecord) -> Generator[None]:
    """Say so as long as the context lasts, however long a large file takes to be put together and stored."""
    is_over = threading.Event()

    def beat() -> None:
        while not is_over.wait(BEAT_SECONDS):
            with suppress(SQLAlchemyError):  # a later one may get through
                uploads.still_finishing(parts.store, upload)

    beating = threading.Thread(target=beat, name=f"finishing-{upload.id}", daemon=True)
    beating.start()
    try:
        yield
    finally:
        is_over.set()
        beating.join()


def _made(parts: Parts, upload: UploadRecord, file: Upload) -> Entry:
    announced: dict[str, Any] = {"filename": upload.filename, "size_bytes": upload.size_bytes}
    asked = _asked.validate_python({"purpose": upload.purpose, **announced, **upload.said})
    of = {"name": asked.name, "upload_id": upload.id}
    assert upload.resource_id is not None
    match asked:
        case DatasetUpload():
            said = {"columns": asked.columns, "on_bad_row": asked.on_bad_row}
            return datasets.made_dataset(parts, upload.project_id, file, upload.resource_id, **said, **of)
        case WeightsUpload():
            return weights.made_weights(parts, upload.project_id, file, upload.resource_id, **of)
        case PromptSetUpload():
            return prompt_sets.made_prompt_set(
                parts, upload.project_id, file, upload.resource_id, column=asked.column, **of
            )
        case _:
            assert_never(asked)


def _became(parts: Parts, upload: UploadRecord) -> Entry:
    """What it has become, as it is now; 404 where that was deleted since."""
    assert upload.resource_id is not None
    where = (parts.store, upload.project_id, upload.resource_id)
    match upload.purpose:
        case "dataset":
            return Dataset.of(dataset_or_404(*where))
        case "weights":
            return Weights.of(weights_or_404(*where))
        case "prompt_set":
            return PromptSet.of(prompt_set_or_404(*where))
        case purpose:
            assert_never(purpose)


def _is_of_its_bytes(error: ApiError) -> bool:
    """Whether it is refused for what it is, which never changes, and not for want of time or memory."""
    return error.status == REFUSED and not any(one.code in OF_THE_MOMENT for one in error.errors)


def _told(error: ApiError) -> dict[str, Any]:
    """The refusal as it is remembered."""
    return {"code": error.code, "detail": error.detail, "errors": [one.model_dump() for one in error.errors]}


def _refused(told: dict[str, Any]) -> ApiError:
    errors = [FieldProblem.model_validate(one) for one in told["errors"]]
    return ApiError(REFUSED, told["code"], told["detail"], errors=errors)


def _not_yet(upload: UploadRecord) -> ApiError:
    error = out_of_place(upload)
    if upload.state == "receiving":
        return ApiError(409, "upload_incomplete", error.detail, headers=error.headers)
    again = {"Retry-After": str(ASK_AGAIN_SECONDS)}
    return ApiError(409, error.code, error.detail, headers={**error.headers, **again})
