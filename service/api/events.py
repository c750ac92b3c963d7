"""A job's events: a page of JSON, or a stream that replays what a client missed and then goes on live."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from service.api.context import Parts, PartsDep
from service.api.lookup import JobDep, job_or_404
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problems
from service.api.schemas.runs import DONE_EXAMPLE, EVENT_EXAMPLE, JobEvent, StreamEnd
from service.errors import ApiError, FieldProblem
from service.store import event_lookup, events
from service.store.records import JobSummary

router = APIRouter(prefix="/v1/jobs", tags=["runs"], responses=problems(401, 422, 500, 503))

LOOK_AGAIN_SECONDS = 0.5
HEARTBEAT_SECONDS = 15.0
EVENTS_AT_ONCE = 200

STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # nginx would hold events back

STREAM_EXAMPLE = (
    "event: step_completed\n"
    f"data: {JobEvent.model_validate(EVENT_EXAMPLE).model_dump_json()}\n"
    f"id: {EVENT_EXAMPLE['id']}\n\n"
    f"event: done\ndata: {StreamEnd.model_validate(DONE_EXAMPLE).model_dump_json()}\n\n"
)
STREAM_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page of events, or the stream",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": STREAM_EXAMPLE}},
    }
}


@router.get(
    "/{job_id}/events",
    response_model=Page[JobEvent],
    summary="Read or follow a job's events",
    responses={**STREAM_RESPONSE, **missing("job", "job")},
)
async def list_events(
    request: Request,
    job: JobDep,
    parts: PartsDep,
    paging: PagingDep,
    last_event_id: Annotated[
        str | None,
        Header(pattern=r"^evt_[0-9a-z]{26}$", description="Where a broken stream goes on; browsers send it."),
    ] = None,
) -> Page[JobEvent] | Response:
    """What happened in a run, oldest first.

    With `Accept: text/event-stream` the answer is a stream of server-sent events, each named by its type: everything
    after `Last-Event-ID` (or `after`; from the beginning without either), then what happens next as it happens, a
    comment as a heartbeat every 15 seconds, and `done` when the job has ended and nothing more will come.
    """
    after_sequence = await run_in_threadpool(_sequence_after, parts, job, paging.after, last_event_id)
    if "text/event-stream" in request.headers.get("accept", ""):
        return EventSourceResponse(_stream(parts, job, after_sequence), headers=STREAM_HEADERS)
    found = await run_in_threadpool(
        events.list_events, parts.store, job.project_id, job.id, after_sequence, paging.limit + 1
    )
    return paging.page([JobEvent.of(event) for event in found[: paging.limit]], has_more=len(found) > paging.limit)


def _sequence_after(parts: Parts, job: JobSummary, after: str | None, last_event_id: str | None) -> int:
    """The number of the event to go on after; 0 for the beginning."""
    cursor = last_event_id or after
    if cursor is None:
        return 0
    sequence = event_lookup.sequence_of(parts.store, job.project_id, job.id, cursor)
    if sequence is None:
        message = f"there is no event {cursor!r} in this job"
        pointer = "header:Last-Event-ID" if last_event_id else "query:after"
        field = FieldProblem(pointer=pointer, code="event_not_found", message=message)
        raise ApiError(422, "invalid_request", message, errors=[field])
    return sequence


async def _stream(parts: Parts, job: JobSummary, sequence: int) -> AsyncIterator[bytes]:
    """Events after `sequence`, then `done`. The job is read before its events, so that none of the last ones is missed."""
    quiet_since = anyio.current_time()
    while True:
        job = await run_in_threadpool(job_or_404, parts.store, job.project_id, job.id)
        found = await run_in_threadpool(
            events.list_events, parts.store, job.project_id, job.id, sequence, EVENTS_AT_ONCE
        )
        for event in found:
            sequence, quiet_since = event.seq, anyio.current_time()
            yield format_sse_event(data_str=JobEvent.of(event).model_dump_json(), event=event.type, id=event.id)
        if len(found) == EVENTS_AT_ONCE:
            continue
        if job.is_terminal:
            end = StreamEnd(job_id=job.id, status=job.state, last_sequence=sequence)
            yield format_sse_event(data_str=end.model_dump_json(), event="done")
            return
        if anyio.current_time() - quiet_since >= HEARTBEAT_SECONDS:
            quiet_since = anyio.current_time()
            yield KEEPALIVE_COMMENT
        await anyio.sleep(LOOK_AGAIN_SECONDS)
