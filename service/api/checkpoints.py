"""Checkpoints: list a job's, look at one, and download its files one by one, all together, or in another form."""

from functools import partial
from typing import Annotated, Literal

from fastapi import Path, Query, Request, Response

from alignment_core.spec.exports import ExportFormat
from service.api.archive import Archive, Member
from service.api.context import Parts, PartsDep
from service.api.downloads import BYTES_EXAMPLE, Body, attachment, file_responses, send_body, send_file
from service.api.export_downloads import EXPORT_RESPONSES, send_export
from service.api.lookup import CheckpointDep, JobDep
from service.api.paging import NewestFirst, Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.routers import api_router
from service.api.schemas.checkpoints import Checkpoint, CheckpointFiles
from service.errors import ApiError, FieldProblem
from service.store.checksums import with_checksums
from service.store.output_pages import page_of_checkpoints
from service.store.records.base import StoredFile
from service.store.records.checkpoints import CheckpointRecord

router = api_router(prefix="/v1", tags=["checkpoints"], responses=problems(401, 422, 500, 503))

OCTETS = "application/octet-stream"
ONE_FILE = {  # of a LoRA, by the download's format
    "safetensors": "pytorch_lora_weights.safetensors",  # the name that diffusers looks for
    "kohya": "pytorch_lora_weights_kohya.safetensors",
}
TRAINING_STATE = "training_state/"

DOWNLOAD_RESPONSES = file_responses(OCTETS, "checkpoint", "ckpt") | {
    200: {
        "description": "The archive, or the file",
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}, "example": BYTES_EXAMPLE}
            for media_type in ("application/zip", OCTETS)
        },
    }
}


@router.get("/jobs/{job_id}/checkpoints", summary="List a job's checkpoints", responses=missing("job", "job"))
def list_checkpoints(
    job: JobDep, parts: PartsDep, paging: PagingDep, newest_first: NewestFirst = False
) -> Page[Checkpoint]:
    """The checkpoints that are stored completely, the earliest step first."""
    found = page_of_checkpoints(
        parts.store, job.project_id, job.id, after_id=paging.after, limit=paging.limit, newest_first=newest_first
    )
    if found is None:
        raise paging.no_entry()
    return paging.page([Checkpoint.of(checkpoint) for checkpoint in found.data], has_more=found.has_more)


@router.get("/checkpoints/{checkpoint_id}", summary="Look at a checkpoint", responses=missing("checkpoint", "ckpt"))
def get_checkpoint(checkpoint: CheckpointDep) -> Checkpoint:
    """What was saved, and after which step."""
    return Checkpoint.of(checkpoint)


@router.get(
    "/checkpoints/{checkpoint_id}/files", summary="List a checkpoint's files", responses=missing("checkpoint", "ckpt")
)
def list_files(checkpoint: CheckpointDep) -> CheckpointFiles:
    """Every file with its size and SHA-256."""
    return CheckpointFiles.of(checkpoint)


@router.api_route(
    "/checkpoints/{checkpoint_id}/files/{path:path}",
    methods=["GET"],
    response_class=Response,
    summary="Download a file of a checkpoint",
    responses=file_responses(OCTETS, "checkpoint", "ckpt"),
)
@router.head("/checkpoints/{checkpoint_id}/files/{path:path}", include_in_schema=False)
def download_file(
    request: Request,
    checkpoint: CheckpointDep,
    parts: PartsDep,
    path: Annotated[str, Path(description="A `path` of the list of files.", examples=["manifest.json"])],
) -> Response:
    """The file's bytes, with ranges and an `ETag`; on an S3 store a redirect to a link that works for some minutes.

    Only a `path` that the list of files names, letter for letter, is looked up: nothing else can be reached.
    """
    file = next((file for file in checkpoint.files if file.path == path), None)
    if file is None:
        raise ApiError(404, "file_not_found", f"checkpoint {checkpoint.id} has no file {path!r}; see its list of files")
    return send_file(request, parts, file, path.rpartition("/")[2], OCTETS)


@router.api_route(
    "/checkpoints/{checkpoint_id}/download",
    methods=["GET"],
    response_class=Response,
    summary="Download a checkpoint",
    responses={
        **DOWNLOAD_RESPONSES,
        **problem(
            404,
            "checkpoint_not_found",
            "there is no checkpoint 'ckpt_01kaf0h2v7x3m5q8r1s4t6w9yz' in this project",
            when="No such checkpoint in this project, or no such format of it",
        ),
        **EXPORT_RESPONSES,
    },
)
@router.head("/checkpoints/{checkpoint_id}/download", include_in_schema=False)
def download_checkpoint(
    request: Request,
    checkpoint: CheckpointDep,
    parts: PartsDep,
    format: Annotated[
        Literal["zip", "safetensors"] | ExportFormat,
        Query(
            description="`zip`: the folder that diffusers loads; `safetensors`: its LoRA weights alone, as one file; "
            "`kohya`: the same under the names that ComfyUI, A1111, InvokeAI and kohya's scripts read. The rest is made by a "
            "worker when it is first asked for: `peft` and `diffusers`, what was trained alone; `merged`, a whole diffusers "
            "folder; `single_file`, a whole model under the original names."
        ),
    ] = "zip",
    include: Annotated[
        Literal["all", "weights"],
        Query(description="What the archive holds; `all`: also the state that only training goes on from."),
    ] = "weights",
) -> Response:
    """The trained weights as an archive, or as one file.

    Unpacked into a folder, the archive is what `attune checkpoint download` leaves there and what diffusers loads:
    `python3 -m zipfile -e aligned.zip aligned`, then `pipeline.load_lora_weights("aligned")`. It is made while it is sent and is stored
    without compression; its length is known and it comes with ranges and an `ETag`, so that a broken download can go on
    (`curl -C -`). The weights come like any single file, with ranges or by redirect.

    A form that a worker has yet to make answers 202 with the export, and where it is in `Location`: ask again after
    `Retry-After` seconds, or wait there. It is made once and kept. One that could not be made answers 409 with the reason.
    """
    match format:
        case "zip":
            pass
        case "kohya" if any(file.path == ONE_FILE["kohya"] for file in checkpoint.files):  # saved by training
            return send_file(request, parts, _lora_weights(checkpoint, "kohya"), f"{checkpoint.id}.safetensors", OCTETS)
        case "safetensors":
            return send_file(request, parts, _lora_weights(checkpoint, format), f"{checkpoint.id}.safetensors", OCTETS)
        case _:
            return send_export(request, parts, checkpoint, format)
    files = [file for file in checkpoint.files if include == "all" or not file.path.startswith(TRAINING_STATE)]
    if request.method == "GET":  # what else is asked needs no checksum
        files = with_checksums(parts.store, parts.objects, checkpoint.id, files)
    archive = Archive([_member(parts, file) for file in files])
    body = Body(archive.size_bytes, archive.sha256_of_contents, archive.open_range)
    return send_body(request, body, {"Content-Disposition": attachment(f"{checkpoint.id}.zip")}, "application/zip")


def _member(parts: Parts, file: StoredFile) -> Member:
    read = partial(parts.objects.open_range, file.object_key)
    return Member(file.path, file.size_bytes, file.sha256, file.crc32 or 0, read)


def _lora_weights(checkpoint: CheckpointRecord, format: Literal["safetensors", "kohya"]) -> StoredFile:
    weights = next((file for file in checkpoint.files if file.path == ONE_FILE[format]), None)
    if weights is None:
        message = f"checkpoint {checkpoint.id} has no {ONE_FILE[format]}; use format=zip"
        field = FieldProblem(pointer="query:format", code="format_not_available", message=message)
        raise ApiError(404, "format_not_available", message, errors=[field])
    return weights
