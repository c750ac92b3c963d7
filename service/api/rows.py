"""What is asked alike of every row of the queue, whatever its run does: lists by metadata, waiting for its end, changes of its state, logs."""

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Query, Request
from fastapi.concurrency import run_in_threadpool

from alignment_core.spec.mistakes import shown
from service.api.context import Parts
from service.api.lookup import summary_or_404, whole_or_404
from service.api.problems import missing, problem
from service.api.quotas import RATE_LIMIT_HEADERS
from service.api.schemas.runs import AttemptLog, Logs
from service.api.schemas.texts import METADATA_KEY
from service.api.waiting import wait_until
from service.errors import ApiError, FieldProblem, invalid_request, not_found
from service.nouns import possessive, stands
from service.store import jobs, outputs
from service.store.database import Store
from service.store.kinds import Kind
from service.store.pulses import JobPulse
from service.store.records.jobs import JobRecord, JobSummary
from service.store.states import InvalidTransition

LOCATION = {
    "headers": {
        "Location": {"description": "Where the new job is.", "schema": {"type": "string"}},
        **RATE_LIMIT_HEADERS,
    }
}


def metadata_filter(
    request: Request, _metadata: Annotated[str | None, Query(alias="metadata[*]", include_in_schema=False)] = None
) -> dict[str, str]:
    """`metadata[team]=design` as `{"team": "design"}`."""
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name.startswith("metadata["):
            key = name.removeprefix("metadata[").removesuffix("]")
            if not METADATA_KEY.fullmatch(key):
                message = f"write metadata[KEY]=VALUE; a key is {METADATA_KEY.pattern}"
                raise invalid_request(
                    [FieldProblem(pointer=f"query:{shown(name)}", code="invalid_filter", message=message)]
                )
            found[key] = value
    return found


MetadataDep = Annotated[dict[str, str], Depends(metadata_filter)]
METADATA_PARAMETER = {
    "name": "metadata",
    "in": "query",
    "style": "deepObject",
    "explode": True,
    "required": False,
    "description": "`metadata[KEY]=VALUE`: only jobs with this pair; several must all hold.",
    "schema": {
        "type": "object",
        "propertyNames": {"pattern": f"^{METADATA_KEY.pattern}$"},
        "additionalProperties": {"type": "string"},
    },
    "example": {"team": "design"},
}


async def waited_for(
    kind: Kind, parts: Parts, project_id: str, row_id: str, wait_seconds: float, request: Request
) -> JobRecord:
    """The row as it stands, or as it stands when it has ended or is paused, or so many seconds have passed; raises 404."""
    if wait_seconds:
        row = await run_in_threadpool(summary_or_404, kind, parts.store, project_id, row_id)
        seen = JobPulse(row.state, row.last_seq)
        await wait_until(parts.jobs_lookout, row.id, seen, _is_at_rest, wait_seconds, request)
    return await run_in_threadpool(whole_or_404, kind, parts.store, project_id, row_id)


def _is_at_rest(pulse: JobPulse) -> bool:
    """Whether nothing more happens by itself."""
    return pulse.is_terminal or pulse.state == "paused"


def transition(verb: str, kind: str = "job", prefix: str = "job") -> dict[int | str, dict[str, Any]]:
    """How a change of state may be answered, for the OpenAPI document."""
    detail = f"{verb} is not possible: {stands(kind, 'succeeded')}"
    return {
        **missing(kind, prefix),
        **problem(409, "invalid_transition", detail, when=f"The {possessive(kind)} state forbids it"),
    }


def change_state(
    change: Callable[[Store, str, str], JobSummary | None],
    verb: str,
    parts: Parts,
    job: JobSummary,
    kind: str = "job",
) -> JobSummary:
    """The job after the change; 409 where its state forbids it."""
    try:
        changed = change(parts.store, job.project_id, job.id)
    except InvalidTransition as error:
        why = stands(kind, error.state) + (f", and {error.reason}" if error.reason else "")
        raise ApiError(409, "invalid_transition", f"{verb} is not possible: {why}") from error
    if changed is None:  # deleted since it was looked up
        raise not_found(kind, job.id)
    return changed


def resumed(parts: Parts, job: JobSummary, kind: str = "job") -> JobSummary:
    """The job in the queue again, its worker rung for; 409 where its state forbids it."""
    queued = change_state(jobs.resume, "resume", parts, job, kind)
    parts.bell.ring(queued.id)
    return queued


def logs_of(parts: Parts, job: JobSummary) -> Logs:
    """The end of what each attempt's process printed."""
    found = outputs.list_logs(parts.store, job.project_id, job.id)
    return Logs(job_id=job.id, data=[AttemptLog.of(log) for log in found])
