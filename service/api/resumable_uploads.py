"""Uploads that go on where a connection broke: announce a file, append to it, ask how much has arrived, have something made of it.

Verbs, headers and statuses are those of tus 1.0 (https://tus.io/protocols/resumable-upload), but for the announcement, which is JSON.
"""

from email.utils import format_datetime
from typing import Annotated

from fastapi import Header, Request, Response
from fastapi.concurrency import run_in_threadpool

from service.api.context import PartsDep
from service.api.deletion import DeleterDep
from service.api.idempotency import IN_FLIGHT, OnceDep
from service.api.lookup import UploadDep
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.prompt_sets import MOST_UPLOAD_BYTES
from service.api.routers import api_router
from service.api.schemas.deleted import Deleted
from service.api.schemas.uploads import UPLOAD_REQUEST_EXAMPLE, Upload, UploadRequest
from service.api.upload_pieces import append, kept_for
from service.api.uploads import plain_name
from service.auth import ProjectDep
from service.errors import ApiError, FieldProblem, invalid_request
from service.scopes import needs
from service.store import uploads
from service.store.deletion import InUse
from service.store.records.uploads import UploadRecord

router = api_router(prefix="/v1/uploads", tags=["uploads"], responses=problems(401, 403, 422, 500, 503))

UPLOADS_PATH = "/v1/uploads"
IN_PIECES = ("application/offset+octet-stream", "application/octet-stream")
ANNOUNCED = ("purpose", "filename", "size_bytes", "sha256")  # what has a column of its own; the rest is said beside

Offset = Annotated[
    str,
    Header(
        alias="Upload-Offset",
        pattern="^(0|[1-9][0-9]{0,15})$",
        description="Where the body begins in the file: at the `offset` of the upload.",
        examples=["2097152"],
    ),
]
TELLS = {
    "Upload-Offset": {"description": "So many bytes have arrived.", "schema": {"type": "integer"}},
    "Upload-Length": {"description": "So many bytes the file has.", "schema": {"type": "integer"}},
    "Upload-Expires": {"description": "When it is forgotten.", "schema": {"type": "string"}},
}
OUT_OF_PLACE = problem(
    409,
    "upload_offset_differs",
    "upload 'upl_01kaf0e4y6b8d0f2h4k6m8p0r2' has 2097152 of 3811204 bytes: send on from there",
    when="The piece does not begin where the last one ended; `Upload-Offset` says where to go on",
)


@router.post(
    "",
    status_code=201,
    response_model=Upload,
    summary="Announce an upload",
    response_description="The upload, of which nothing has arrived",
    responses={
        201: {"headers": {"Location": {"description": "Where to send the file.", "schema": {"type": "string"}}}},
        **IN_FLIGHT,
        **problems(400, 413),
    },
    openapi_extra={
        "requestBody": {"content": {"application/json": {"example": UPLOAD_REQUEST_EXAMPLE}}},
    },
)
def create_upload(body: UploadRequest, project_id: ProjectDep, parts: PartsDep, once: OnceDep) -> Response:
    """Announce a file that is sent in pieces, for a connection that may break: what has arrived stays.

    Then `PATCH` what is missing until all is there, and `POST .../finish`. It counts towards the project's quota at once, and is
    forgotten a day after its last piece.
    """
    limit = parts.settings.max_upload_bytes
    limit = min(limit, MOST_UPLOAD_BYTES) if body.purpose == "prompt_set" else limit
    if body.size_bytes > limit:
        raise ApiError(413, "content_too_large", f"the file is larger than the {limit} bytes accepted here")
    asked = body.model_dump(mode="json")

    def create(upload_id: str | None) -> Upload:
        made = uploads.create(
            parts.store,
            project_id=project_id,
            purpose=body.purpose,
            filename=plain_name(body.filename),
            size_bytes=body.size_bytes,
            sha256=body.sha256,
            said={name: value for name, value in asked.items() if name not in ANNOUNCED},
            keep=kept_for(parts.settings),
            upload_id=upload_id,
        )
        return Upload.of(made)

    return once("upl", UPLOADS_PATH, asked, create)


@router.get("", summary="List unfinished uploads")
def list_uploads(project_id: ProjectDep, parts: PartsDep, paging: PagingDep) -> Page[Upload]:
    """The project's uploads of which nothing was made yet, newest first."""
    page = uploads.list_unfinished(parts.store, project_id, after_id=paging.after, limit=paging.limit)
    return paging.page([Upload.of(one) for one in page.data], has_more=page.has_more)


@router.api_route(
    "/{upload_id}",
    methods=["GET"],
    response_model=Upload,
    summary="Ask how much has arrived",
    responses={200: {"headers": TELLS}, **missing("upload", "upl")},
)
@router.head("/{upload_id}", include_in_schema=False)
def get_upload(upload: UploadDep, response: Response) -> Upload:
    """An upload and where to go on with it; its headers say so to a HEAD too."""
    response.headers.update(headers_of(upload))
    return Upload.of(upload)


@router.patch(
    "/{upload_id}",
    dependencies=[
        needs("submit", is_deed=False)
    ],  # a row a piece would be hundreds a file: the log has its beginning and its end
    status_code=204,
    response_class=Response,
    summary="Append to an upload",
    response_description="The bytes are kept",
    responses={204: {"headers": TELLS}, **missing("upload", "upl"), **OUT_OF_PLACE, **problems(408, 413, 507)},
    openapi_extra={
        "requestBody": {
            "required": True,
            "description": "What is missing of the file from `Upload-Offset` on, or the beginning of it.",
            "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in IN_PIECES},
        }
    },
)
async def append_to_upload(request: Request, upload: UploadDep, parts: PartsDep, offset: Offset) -> Response:
    """Send bytes of the file, which are kept as they arrive: when the connection breaks, ask for the `offset` and go on there.

    Two who send the same bytes do no harm: the second is told with 409 where to go on. With curl:
    `tail -c +$((OFFSET + 1)) FILE | curl -T - -X PATCH -H "Upload-Offset: $OFFSET" -H "Content-Type: application/octet-stream" URL`
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in IN_PIECES:
        message = f"send Content-Type: {IN_PIECES[0]}"
        raise invalid_request([FieldProblem(pointer="header:Content-Type", code="not_bytes", message=message)])
    if upload.state != "receiving" or int(offset) != upload.received_bytes:
        raise out_of_place(upload)
    try:
        kept = await append(request, parts, upload)
    except uploads.OutOfPlaceError as error:
        raise out_of_place(error.found) from error
    return Response(status_code=204, headers=headers_of(kept))


@router.delete(
    "/{upload_id}",
    summary="Delete an upload",
    responses={
        **missing("upload", "upl"),
        **problem(
            409,
            "upload_in_use",
            "upload 'upl_01kaf0e4y6b8d0f2h4k6m8p0r2' cannot be deleted: something is made of it just now",
            when="Something is made of it just now",
        ),
    },
)
async def delete_upload(upload: UploadDep, parts: PartsDep, deleter: DeleterDep) -> Deleted:
    """Forget an upload and what has arrived of it. What it has become stays."""

    def delete() -> str | None:
        try:
            return uploads.delete(parts.store, upload.project_id, upload.id)
        except uploads.OutOfPlaceError as error:
            raise InUse("upload_in_use", "something is made of it just now") from error

    return await run_in_threadpool(deleter, "upload", upload.id, delete)


def headers_of(upload: UploadRecord) -> dict[str, str]:
    """How far it is, as tus says it."""
    return {
        "Upload-Offset": str(upload.received_bytes),
        "Upload-Length": str(upload.size_bytes),
        "Upload-Expires": format_datetime(upload.expires_at, usegmt=True),
        "Tus-Resumable": "1.0.0",
    }


def out_of_place(upload: UploadRecord) -> ApiError:
    """409 that says where to go on."""
    if upload.state != "receiving":
        code, why = f"upload_{upload.state}", f"is {upload.state}"
    else:
        code = "upload_offset_differs"
        why = f"has {upload.received_bytes} of {upload.size_bytes} bytes: send on from there"
    return ApiError(409, code, f"upload {upload.id!r} {why}", headers=headers_of(upload))
