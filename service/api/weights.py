"""Weights to start from: upload a LoRA, watch it being checked, read what it holds."""

import struct
from functools import partial

from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool

from service.api.checked_uploads import (
    WaitForCheck,
    beginning_of,
    created,
    form_of,
    found_after,
    name_of,
    same_request,
    store_upload,
)
from service.api.context import Parts, PartsDep
from service.api.idempotency import OnceDep
from service.api.lookup import WeightsPath, weights_or_404
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problems
from service.api.routers import api_router
from service.api.schemas.weights import Weights
from service.api.uploads import Upload, receive
from service.auth import ProjectDep
from service.errors import FieldProblem, invalid_request
from service.store import datasets

router = api_router(prefix="/v1/weights", tags=["weights"], responses=problems(401, 403, 422, 500, 503))

UPLOAD_PATH = "/v1/weights"
SUFFIX = ".safetensors"
LONGEST_HEADER_BYTES = 100_000_000  # that of the safetensors library

FORM = form_of("A LoRA as safetensors, under the names of PEFT, diffusers or kohya's scripts.", {})


@router.post(
    "",
    status_code=201,
    response_model=Weights,
    summary="Upload a LoRA to start from",
    response_description="The weights, being checked",
    responses=created("Where the new weights are."),
    openapi_extra=FORM,
)
async def create_weights(request: Request, project_id: ProjectDep, parts: PartsDep, once: OnceDep) -> Response:
    """Store a LoRA and have it checked in the background; a job then names it: `"start": {"lora": "wts_..."}`.

    Ask with `?wait=60` until it is `ready` or `failed`. With curl:
    `curl -F file=@style.safetensors http://localhost:8000/v1/weights`
    """
    limit = parts.settings.max_upload_bytes
    async with receive(request, parts.settings, limit, frozenset({"name"})) as upload:
        name = name_of(upload)
        refuse_other_files(beginning_of(upload), upload.filename)

        def create(weights_id: str | None) -> Weights:
            return made_weights(parts, project_id, upload, weights_id, name=name)

        return await run_in_threadpool(once, "wts", UPLOAD_PATH, same_request(upload, name), create)


def made_weights(
    parts: Parts,
    project_id: str,
    upload: Upload,
    weights_id: str | None,
    *,
    name: str | None,
    upload_id: str | None = None,
) -> Weights:
    """Weights of a file that has arrived, in one body or as the upload `upload_id`; 422 for one of another form."""
    refuse_other_files(beginning_of(upload), upload.filename)
    weights = datasets.create(
        parts.store,
        project_id=project_id,
        filename=upload.filename,
        size_bytes=upload.size_bytes,
        name=name,
        kind="lora",
        dataset_id=weights_id,
        upload_id=upload_id,
    )
    return Weights.of(store_upload(parts, weights, upload, SUFFIX))


def refuse_other_files(beginning: bytes, filename: str) -> None:
    """A safetensors file begins with the length of its header, and the header is JSON. A worker reads on from there."""
    start = beginning[:9]
    is_safetensors = len(start) == 9 and struct.unpack("<Q", start[:8])[0] <= LONGEST_HEADER_BYTES and start[8:] == b"{"
    if not is_safetensors:
        message = f"{filename!r} is no safetensors file; pickled weights (.bin, .ckpt, .pt) are not read"
        raise invalid_request([FieldProblem(pointer="/file", code="unknown_format", message=message)])


@router.get("", summary="List weights")
def list_weights(project_id: ProjectDep, parts: PartsDep, paging: PagingDep) -> Page[Weights]:
    """The project's uploaded weights, newest first."""
    page = datasets.list_datasets(parts.store, project_id, kind="lora", after_id=paging.after, limit=paging.limit)
    return paging.page([Weights.of(one) for one in page.data], has_more=page.has_more)


@router.get("/{weights_id}", summary="Look at weights, or wait for them", responses=missing("weights", "wts"))
async def get_weights(
    weights_id: WeightsPath,
    request: Request,
    project_id: ProjectDep,
    parts: PartsDep,
    wait: WaitForCheck = 0,
) -> Weights:
    """Uploaded weights, what they hold, and whether they can be used.

    With `wait` the answer comes when they are `ready` or `failed`, and after so many seconds in any case.
    """
    find = partial(weights_or_404, parts.store, project_id, weights_id)
    return Weights.of(await found_after(wait, find, parts, request))
