"""Pushes: have a checkpoint brought to a repository of the Hub with its model card, and watch it."""

from typing import Annotated

from fastapi import Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from alignment_core.spec.exports import ExportFormat, refusal
from service.api.context import Parts, PartsDep
from service.api.export_downloads import ASK_AGAIN_SECONDS, EXPORT_RESPONSES
from service.api.lookup import CheckpointDep
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.routers import api_router
from service.api.schemas.pushes import PUSH_ID, Push, PushRequest
from service.api.waiting import LONGEST_WAIT_SECONDS, wait_until
from service.errors import ApiError, FieldProblem, not_found
from service.store import pushes
from service.store.ids import is_id
from service.store.records.checkpoints import CheckpointRecord, PushRecord, PushState

router = api_router(prefix="/v1/checkpoints", tags=["checkpoints"], responses=problems(401, 422, 500, 503))

ENDED: tuple[PushState, ...] = ("pushed", "failed")
PushPath = Annotated[str, Path(description="Id of a push.", examples=[PUSH_ID])]


@router.post(
    "/{checkpoint_id}/pushes",
    status_code=202,
    summary="Push a checkpoint to the Hub",
    response_description="The push, which a worker makes now, or has made",
    responses={
        202: {"headers": EXPORT_RESPONSES[202]["headers"]},
        **missing("checkpoint", "ckpt"),
        **problems(400, 413),
        **problem(
            403,
            "namespace_not_allowed",
            "this server pushes to repositories of our-team, and not of 'somebody'",
            when="The key may not, or the operator has not allowed this namespace",
        ),
        **problem(
            409,
            "format_not_available",
            "checkpoint ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2: a full fine-tune has no LoRA that kohya could hold",
            when="The checkpoint has no such form",
        ),
    },
)
def create_push(checkpoint: CheckpointDep, parts: PartsDep, body: PushRequest, response: Response) -> Push:
    """Have a worker commit the files of an export, its model card and the job's pictures: once for each repository and branch.

    Asking again answers the same push; one that failed is tried again, and files that are there already are not sent again.
    """
    _refuse_foreign(parts, body.repo_id)
    format = body.format or _default_format(checkpoint)
    if (why_not := refusal(format, checkpoint.kind)) is not None:
        raise ApiError(409, "format_not_available", f"checkpoint {checkpoint.id}: {why_not}")
    push = pushes.ask(parts.store, checkpoint, body.repo_id, body.branch, format, is_private=body.private)
    if push is None:  # somebody deleted the checkpoint just now
        raise not_found("checkpoint", checkpoint.id)
    if push.state == "queued":
        parts.bell.ring_dataset(push.id)
    response.headers["Location"] = f"{parts.base_url}/v1/checkpoints/{checkpoint.id}/pushes/{push.id}"
    if push.state not in ENDED:
        response.headers["Retry-After"] = str(ASK_AGAIN_SECONDS)
    return Push.of(push)


@router.get("/{checkpoint_id}/pushes", summary="List a checkpoint's pushes", responses=missing("checkpoint", "ckpt"))
def list_pushes(checkpoint: CheckpointDep, parts: PartsDep, paging: PagingDep) -> Page[Push]:
    """Where the checkpoint was pushed, or is to be, in the order in which that was asked for."""
    return paging.slice([Push.of(one) for one in pushes.list_pushes(parts.store, checkpoint.id)])


@router.get(
    "/{checkpoint_id}/pushes/{push_id}", summary="Look at a push, or wait for it", responses=missing("push", "psh")
)
async def get_push(
    checkpoint: CheckpointDep,
    push_id: PushPath,
    request: Request,
    parts: PartsDep,
    wait: Annotated[
        float, Query(ge=0, le=LONGEST_WAIT_SECONDS, description="Seconds to wait for its end before answering.")
    ] = 0,
) -> Push:
    """Its commit once it is `pushed`, or why it failed."""
    push = await run_in_threadpool(_push_or_404, parts, checkpoint, push_id)
    if wait and push.state not in ENDED:
        over = ENDED.__contains__
        await wait_until(parts.pushes_lookout, push.id, push.state, over, wait, request)
        push = await run_in_threadpool(_push_or_404, parts, checkpoint, push_id)
    return Push.of(push)


def _refuse_foreign(parts: Parts, repo_id: str) -> None:
    allowed, namespace = parts.settings.hub_namespaces, repo_id.partition("/")[0]
    if namespace in allowed:
        return
    where = f"to repositories of {', '.join(allowed)}, and not of {namespace!r}" if allowed else "to no repository"
    message = f"this server pushes {where}"
    field = FieldProblem(pointer="/repo_id", code="namespace_not_allowed", message=message)
    raise ApiError(403, "namespace_not_allowed", message, errors=[field])


def _default_format(checkpoint: CheckpointRecord) -> ExportFormat:
    return "diffusers" if checkpoint.kind == "lora" else "merged"


def _push_or_404(parts: Parts, checkpoint: CheckpointRecord, push_id: str) -> PushRecord:
    push = pushes.get(parts.store, checkpoint.id, push_id) if is_id(push_id) else None
    if push is None:
        raise not_found("push", push_id)
    return push
