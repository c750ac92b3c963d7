"""A checkpoint in another form as a download: the export's bytes once a worker has made it, 202 until then."""

from collections.abc import Sequence
from functools import partial

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from alignment_core.spec.exports import ONE_FILE, ExportFormat, refusal
from service.api.archive import Archive, Member
from service.api.context import Parts
from service.api.downloads import Body, attachment, send_body, send_file
from service.api.problems import Responses, problem
from service.api.schemas.exports import Export
from service.errors import ApiError, FieldProblem, not_found
from service.store import exports
from service.store.records.base import StoredFile
from service.store.records.checkpoints import CheckpointRecord, ExportRecord

ASK_AGAIN_SECONDS = 2
OCTETS = "application/octet-stream"

EXPORT_RESPONSES: Responses = {
    202: {
        "description": "A worker has yet to make it",
        "model": Export,
        "headers": {
            "Location": {"description": "Where the export is.", "schema": {"type": "string"}},
            "Retry-After": {"description": "Seconds after which to ask again.", "schema": {"type": "string"}},
        },
    },
    **problem(
        409,
        "export_failed",
        "the merged export of checkpoint 'ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2' failed: the base model could not be read",
        when="The checkpoint has no such form, or making it failed",
    ),
}


def address_of(parts: Parts, export: ExportRecord) -> str:
    return f"{parts.base_url}/v1/checkpoints/{export.checkpoint_id}/exports/{export.format}"


def asked_for(parts: Parts, checkpoint: CheckpointRecord, format: ExportFormat, *, again: bool = False) -> ExportRecord:
    """The export, which a worker is rung for while it waits; 409 where there is no such form of the checkpoint."""
    if (why_not := refusal(format, checkpoint.kind)) is not None:
        field = FieldProblem(pointer="query:format", code="format_not_available", message=why_not)
        raise ApiError(409, "format_not_available", f"checkpoint {checkpoint.id}: {why_not}", errors=[field])
    export = exports.ask(parts.store, checkpoint, format, again=again)
    if export is None:  # somebody deleted the checkpoint just now
        raise not_found("checkpoint", checkpoint.id)
    if export.state == "queued":
        parts.bell.ring_dataset(export.id)
    return export


def send_export(request: Request, parts: Parts, checkpoint: CheckpointRecord, format: ExportFormat) -> Response:
    """Answer GET or HEAD of a download: the bytes, or 202 with the export that a worker makes now. HEAD asks for none."""
    known = exports.get(parts.store, checkpoint.id, format)
    if request.method == "HEAD" and known is None:
        raise ApiError(404, "export_not_found", f"nobody has asked for checkpoint {checkpoint.id} as {format}")
    export = known or asked_for(parts, checkpoint, format)
    match export.state:
        case "ready":
            return _send(request, parts, export)
        case "failed":
            why = "" if export.error is None else export.error.message
            detail = f"the {format} export of checkpoint {checkpoint.id!r} failed: {why}"
            raise ApiError(409, "export_failed", detail)
        case _:
            if export.state == "queued":
                parts.bell.ring_dataset(export.id)
            headers = {"Location": address_of(parts, export), "Retry-After": str(ASK_AGAIN_SECONDS)}
            return JSONResponse(Export.of(export).model_dump(mode="json"), 202, headers)


def _send(request: Request, parts: Parts, export: ExportRecord) -> Response:
    if (name := ONE_FILE.get(export.format)) is not None:
        (file,) = [file for file in export.files if file.path == name]
        return send_file(request, parts, file, f"{export.checkpoint_id}.safetensors", OCTETS)
    return send_archive(request, parts, export.files, f"{export.checkpoint_id}-{export.format}.zip")


def send_archive(request: Request, parts: Parts, files: Sequence[StoredFile], filename: str) -> Response:
    """Stored files whose checksums are known, as one zip that is made while it is sent."""
    members = [
        Member(
            file.path, file.size_bytes, file.sha256, file.crc32 or 0, partial(parts.objects.open_range, file.object_key)
        )
        for file in files
    ]
    archive = Archive(members)
    body = Body(archive.size_bytes, archive.sha256_of_contents, archive.open_range)
    return send_body(request, body, {"Content-Disposition": attachment(filename)}, "application/zip")
