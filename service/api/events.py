"""A job's events: a page of JSON, or a stream that replays what a client missed and then goes on live."""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from service.api.context import Parts, PartsDep
from service.api.feeds import Chunk
from service.api.lookup import JobDep
from service.api.paging import NewestFirst, Page, Paging, PagingDep
from service.api.problems import missing, problems
from service.api.routers import api_router
from service.api.schemas.runs import DONE_EXAMPLE, EVENT_EXAMPLE, JobEvent, StreamEnd
from service.errors import ApiError, FieldProblem
from service.store import event_lookup, events
from service.store.database import Store
from service.store.pulses import JobPulse
from service.store.records.jobs import JobSummary

router = api_router(prefix="/v1/jobs", tags=["runs"], responses=problems(401, 422, 500, 503))

HEARTBEAT_SECONDS = 15.0
EVENTS_AT_ONCE = 200
BEFORE_THE_FIRST = "evt_" + 26 * "0"  # the id that `done` has where a job ended without a single event

STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # nginx would hold events back

LastEventId = Annotated[
    str | None,
    Header(pattern=r"^evt_[0-9a-z]{26}$", description="Where a broken stream goes on; browsers send it."),
]

EventTypes = Annotated[
    list[str] | None,
    Query(
        max_length=50,
        description="Only events of these types; a stream has all.",
        examples=[["warning_raised", "checkpoint_saved"]],
    ),
]

STREAM_EXAMPLE = (
    "event: step_completed\n"
    f"data: {JobEvent.model_validate(EVENT_EXAMPLE).model_dump_json()}\n"
    f"id: {EVENT_EXAMPLE['id']}\n\n"
    f"event: done\ndata: {StreamEnd.model_validate(DONE_EXAMPLE).model_dump_json()}\nid: {EVENT_EXAMPLE['id']}\n\n"
)
STREAM_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A page of events, or the stream",
        "content": {"text/event-stream": {"schema": {"type": "string"}, "example": STREAM_EXAMPLE}},
    },
    204: {
        "description": "The job has ended, and `Last-Event-ID` is its last event: a stream would have nothing to say"
    },
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
    type: EventTypes = None,
    newest_first: NewestFirst = False,
    last_event_id: LastEventId = None,
) -> Page[JobEvent] | Response:
    """What happened in a run, oldest first.

    With `Accept: text/event-stream` the answer is a stream of server-sent events, each named by its type: everything
    after `Last-Event-ID` (or `after`; from the beginning without either), then what happens next as it happens, a
    comment as a heartbeat every 15 seconds, and `done` when the job has ended and nothing more will come. A browser's
    `EventSource` then connects once more with the id of `done`; the answer is 204, and it stops.
    """
    return await events_of(request, job, parts, paging, last_event_id, type, newest_first=newest_first)


async def events_of(
    request: Request,
    job: JobSummary,
    parts: Parts,
    paging: Paging,
    last_event_id: str | None,
    types: Sequence[str] | None = None,
    *,
    newest_first: bool = False,
) -> Page[JobEvent] | Response:
    """A page of the events of a row of the queue, or its stream where the client asks for one, which has all of them."""
    after_sequence = await run_in_threadpool(_sequence_after, parts, job, paging.after, last_event_id)
    if "text/event-stream" in request.headers.get("accept", ""):
        if last_event_id is not None and job.is_terminal and after_sequence >= job.last_seq:
            return Response(status_code=204)
        last_id = last_event_id or paging.after or BEFORE_THE_FIRST
        return EventSourceResponse(_stream(parts, job, after_sequence, last_id), headers=STREAM_HEADERS)
    found = await run_in_threadpool(
        partial(
            events.list_events,
            parts.store,
            job.project_id,
            job.id,
            after_sequence,
            paging.limit + 1,
            types=types,
            newest_first=newest_first,
        )
    )
    return paging.page([JobEvent.of(event) for event in found[: paging.limit]], has_more=len(found) > paging.limit)


def _sequence_after(parts: Parts, job: JobSummary, after: str | None, last_event_id: str | None) -> int:
    """The number of the event to go on after; 0 for the beginning."""
    cursor = last_event_id or after
    if cursor is None or cursor == BEFORE_THE_FIRST:
        return 0
    sequence = event_lookup.sequence_of(parts.store, job.project_id, job.id, cursor)
    if sequence is None:
        message = f"there is no event {cursor!r} in this job"
        pointer = "header:Last-Event-ID" if last_event_id else "query:after"
        field = FieldProblem(pointer=pointer, code="event_not_found", message=message)
        raise ApiError(422, "invalid_request", message, errors=[field])
    return sequence


def read_chunk(store: Store, project_id: str, job_id: str, sequence: int) -> Chunk | None:
    """The next events of a job as they are sent."""
    found = events.list_events(store, project_id, job_id, sequence, EVENTS_AT_ONCE)
    if not found:
        return None
    parts = (
        format_sse_event(data_str=JobEvent.of(event).model_dump_json(), event=event.type, id=event.id)
        for event in found
    )
    return Chunk(b"".join(parts), found[-1].seq, found[-1].id)


async def _stream(parts: Parts, job: JobSummary, sequence: int, last_id: str) -> AsyncIterator[bytes]:
    """Events after `sequence`, then `done`. How many there are is read with the state, so that no last one is missed."""
    with parts.jobs_lookout.watch(job.id, JobPulse(job.state, job.last_seq)) as watch:
        while (pulse := watch.seen) is not None:  # until the job is deleted
            if sequence < pulse.last_seq:
                chunk = await parts.feeds.after(job.project_id, job.id, sequence)
                if chunk is None:  # deleted in between
                    return
                sequence, last_id = chunk.last_sequence, chunk.last_id
                yield chunk.content
            elif pulse.is_terminal:
                end = StreamEnd(job_id=job.id, status=pulse.state, last_sequence=sequence)
                yield format_sse_event(data_str=end.model_dump_json(), event="done", id=last_id)
                return
            elif not await watch.change(HEARTBEAT_SECONDS):
                yield KEEPALIVE_COMMENT
