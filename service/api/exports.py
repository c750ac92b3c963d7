"""Exports: ask for a checkpoint in another form, watch it being made, fetch its files."""

from typing import Annotated

from fastapi import Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from alignment_core.spec.exports import ExportFormat
from service.api.context import Parts, PartsDep
from service.api.downloads import file_responses, send_file
from service.api.export_downloads import ASK_AGAIN_SECONDS, EXPORT_RESPONSES, OCTETS, address_of, asked_for
from service.api.lookup import CheckpointDep
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.routers import api_router
from service.api.schemas.exports import Export, ExportRequest
from service.api.waiting import LONGEST_WAIT_SECONDS, wait_until
from service.errors import ApiError
from service.store import exports
from service.store.records.checkpoints import CheckpointRecord, ExportRecord, ExportState

router = api_router(prefix="/v1/checkpoints", tags=["checkpoints"], responses=problems(401, 422, 500, 503))

ENDED: tuple[ExportState, ...] = ("ready", "failed")
FormatPath = Annotated[ExportFormat, Path(description="The form that was asked for.", examples=["kohya"])]
MISSING = problem(
    404,
    "export_not_found",
    "nobody has asked for checkpoint 'ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2' as merged",
    when="No such checkpoint in this project, or nobody has asked for it in this form",
)


@router.post(
    "/{checkpoint_id}/exports",
    status_code=202,
    summary="Ask for a checkpoint in another form",
    response_description="The export, which a worker makes now, or has made",
    responses={
        202: {"headers": EXPORT_RESPONSES[202]["headers"]},
        409: EXPORT_RESPONSES[409],
        **missing("checkpoint", "ckpt"),
        **problems(400, 403, 413),
    },
)
def create_export(checkpoint: CheckpointDep, parts: PartsDep, body: ExportRequest, response: Response) -> Export:
    """Have a worker make the form, once: asking again answers the same export. One that failed is made anew."""
    export = asked_for(parts, checkpoint, body.format, again=True)
    response.headers["Location"] = address_of(parts, export)
    if export.state not in ENDED:
        response.headers["Retry-After"] = str(ASK_AGAIN_SECONDS)
    return Export.of(export)


@router.get("/{checkpoint_id}/exports", summary="List a checkpoint's exports", responses=missing("checkpoint", "ckpt"))
def list_exports(checkpoint: CheckpointDep, parts: PartsDep, paging: PagingDep) -> Page[Export]:
    """The forms that somebody has asked for, in that order."""
    return paging.slice([Export.of(one) for one in exports.list_exports(parts.store, checkpoint.id)])


@router.get("/{checkpoint_id}/exports/{format}", summary="Look at an export, or wait for it", responses=MISSING)
async def get_export(
    checkpoint: CheckpointDep,
    format: FormatPath,
    request: Request,
    parts: PartsDep,
    wait: Annotated[
        float, Query(ge=0, le=LONGEST_WAIT_SECONDS, description="Seconds to wait for its end before answering.")
    ] = 0,
) -> Export:
    """How far it is, and its files once it is `ready`. With `wait` the answer comes then, or after so many seconds."""
    export = await run_in_threadpool(_export_or_404, parts, checkpoint, format)
    if wait and export.state not in ENDED:
        over = ENDED.__contains__
        await wait_until(parts.exports_lookout, export.id, export.state, over, wait, request)
        export = await run_in_threadpool(_export_or_404, parts, checkpoint, format)
    return Export.of(export)


@router.api_route(
    "/{checkpoint_id}/exports/{format}/files/{path:path}",
    methods=["GET"],
    response_class=Response,
    summary="Download a file of an export",
    responses={**file_responses(OCTETS, "checkpoint", "ckpt"), **MISSING},
)
@router.head("/{checkpoint_id}/exports/{format}/files/{path:path}", include_in_schema=False)
def download_export_file(
    request: Request,
    checkpoint: CheckpointDep,
    format: FormatPath,
    parts: PartsDep,
    path: Annotated[str, Path(description="A `path` of the export's files.", examples=["README.md"])],
) -> Response:
    """The file's bytes, like those of a checkpoint's files; `README.md` is the model card."""
    export = _export_or_404(parts, checkpoint, format)
    file = next((file for file in export.files if file.path == path), None)
    if file is None:
        raise ApiError(404, "file_not_found", f"the {format} export of {checkpoint.id} has no file {path!r}")
    return send_file(request, parts, file, path.rpartition("/")[2], OCTETS)


def _export_or_404(parts: Parts, checkpoint: CheckpointRecord, format: ExportFormat) -> ExportRecord:
    if (export := exports.get(parts.store, checkpoint.id, format)) is None:
        raise ApiError(404, "export_not_found", f"nobody has asked for checkpoint {checkpoint.id} as {format}")
    return export
