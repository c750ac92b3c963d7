"""Jobs: create, validate, list, look at, wait for, cancel, pause, resume."""

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

from fastapi import Body, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from alignment_core.spec import JobSpec
from service.api.admission import estimated, needed_gib, refuse_unfit, validate_spec, with_model_of_alias
from service.api.context import Parts, PartsDep
from service.api.idempotency import IN_FLIGHT, OnceDep
from service.api.lookup import JobDep, JobPath, whole_or_404
from service.api.model_reports import resolved as with_model
from service.api.named_prompts import with_prompt_sets
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problems
from service.api.quotas import submit_headers
from service.api.routers import api_router
from service.api.rows import LOCATION, METADATA_PARAMETER, MetadataDep, change_state, resumed, transition, waited_for
from service.api.schemas.job_examples import CREATE_EXAMPLE
from service.api.schemas.jobs import Job, JobRequest, JobSummary, PauseRequest, Validation
from service.api.waiting import LONGEST_WAIT_SECONDS
from service.auth import ProjectDep
from service.errors import not_json
from service.scopes import needs
from service.store import jobs, usage
from service.store.ancestry import CheckpointGone
from service.store.catalog import stored_datasets, stored_prompts, stored_weights
from service.store.event_lookup import latest_of_type
from service.store.queueing import DatasetGone
from service.store.states import JobState

router = api_router(prefix="/v1/jobs", tags=["jobs"], responses=problems(401, 403, 422, 500, 503))


@router.post(
    "",
    status_code=201,
    response_model=Job,
    summary="Create a job",
    response_description="The job, queued, with every default of its spec written out",
    responses={201: LOCATION, **IN_FLIGHT, **problems(400, 413, 429)},
)
def create_job(
    body: JobRequest,
    project_id: ProjectDep,
    parts: PartsDep,
    once: OnceDep,
    check_only: Annotated[
        bool, Query(description="Only try what is tried before a run, and end; nothing is trained.")
    ] = False,
) -> Response:
    """Queue an alignment run.

    Before it is queued, the names in the spec are looked up, and its data set must be ready. To know beforehand what
    would be refused and why, post the same body to `/v1/jobs/validate`; with `check_only` a worker tries one step, a checkpoint, a picture
    and its rewards on real parts, and the job succeeds once they have passed.
    """

    request = body.model_dump(mode="json") | ({"check_only": True} if check_only else {})
    answer = once(
        "job",
        "/v1/jobs",
        request,
        lambda job_id: new_job(parts, project_id, body, job_id, check_only=check_only),
        {"spec": spec_of_job(parts, project_id)},
    )
    answer.headers.update(submit_headers(parts, project_id))
    return answer


def new_job(parts: Parts, project_id: str, body: JobRequest, job_id: str | None, *, check_only: bool = False) -> Job:
    """Queue the job and ring for it; raises 422 with everything that keeps this server from running it."""
    body = with_model_of_alias(parts, project_id, body)
    refuse_unfit(parts, project_id, body)
    queued = what_is_queued(parts, project_id, body.spec)
    try:
        job = jobs.create(
            parts.store,
            project_id=project_id,
            **{**queued, "spec": JobSpec.model_validate(queued["spec"])},
            name=body.name,
            metadata=body.metadata,
            job_id=job_id,
            resume_from_checkpoint_id=body.resume_from and body.resume_from.checkpoint_id,
            check_only=check_only,
            retention=None if body.retention is None else body.retention.rule(),
            pins=None if body.pins is None else body.pins.rule(),
        )
    except (DatasetGone, CheckpointGone):  # deleted just now
        refuse_unfit(parts, project_id, body)
        raise
    parts.bell.ring(job.id)
    return Job.whole(job)


def what_is_queued(parts: Parts, project_id: str, spec: JobSpec) -> dict[str, Any]:
    """What `jobs.create` is told of a spec that nothing keeps from running, as JSON."""
    queued = with_prompt_sets(parts, project_id, with_model(parts, project_id, spec))
    return {
        "spec": queued.model_dump(mode="json"),
        "estimate": estimated(parts, project_id, queued).model_dump(mode="json"),
        "card_gib": needed_gib(parts, project_id, queued),
        "needs": [found for _, found in (*stored_datasets(spec), *stored_weights(spec))],
        "needs_prompts": [source.id for _, source in stored_prompts(spec)],
    }


def spec_of_job(parts: Parts, project_id: str) -> Callable[[str], Any]:
    """What an answer that is given again reads of the job itself."""
    return lambda job_id: whole_or_404("job", parts.store, project_id, job_id).spec


@router.post(
    "/validate",
    dependencies=[needs("read")],  # it stores nothing and starts nothing
    summary="Check a spec without running it",
    response_description="Whether the spec would be taken, and what would follow from it",
    responses=problems(400, 413),
)
def validate_job(
    body: Annotated[Any, Body(description="The body of `POST /v1/jobs`.", examples=[CREATE_EXAMPLE])],
    request: Request,
    project_id: ProjectDep,
    parts: PartsDep,
) -> Validation:
    """Say everything that is wrong or doubtful in a spec, at once. Nothing is stored and nothing starts.

    A spec with mistakes is answered with 200 and `valid: false`; 422 means that the body is not JSON.
    """
    if isinstance(body, bytes):  # what FastAPI leaves of a body of another media type
        raise not_json(request)
    return validate_spec(parts, project_id, body)


@router.get("", summary="List jobs", openapi_extra={"parameters": [METADATA_PARAMETER]})
def list_jobs(
    project_id: ProjectDep,
    parts: PartsDep,
    paging: PagingDep,
    metadata: MetadataDep,
    status: Annotated[list[JobState] | None, Query(description="Only jobs in one of these states.")] = None,
    method: Annotated[str | None, Query(max_length=64, description="Only jobs of this method.")] = None,
    model: Annotated[
        str | None, Query(max_length=500, description="Only jobs of this model: catalog name, repository or path.")
    ] = None,
) -> Page[JobSummary]:
    """The project's jobs, newest first, without their specs."""
    page = jobs.list_jobs(
        parts.store,
        project_id,
        after_id=paging.after,
        limit=paging.limit,
        states=status,
        method=method,
        model=model,
        metadata=metadata,
    )
    return paging.page([JobSummary.of(job) for job in page.data], has_more=page.has_more)


@router.get("/{job_id}", summary="Look at a job, or wait for it", responses=missing("job", "job"))
async def get_job(
    job_id: JobPath,
    request: Request,
    project_id: ProjectDep,
    parts: PartsDep,
    wait: Annotated[
        float,
        Query(ge=0, le=LONGEST_WAIT_SECONDS, description="Seconds to wait for the end of the job before answering."),
    ] = 0,
) -> Job:
    """A job as it stands.

    With `wait` the answer comes when the job has ended or is paused, and after so many seconds in any case.
    """
    found = await waited_for("job", parts, project_id, job_id, wait, request)
    told = await run_in_threadpool(
        lambda: [
            latest_of_type(parts.store, project_id, job_id, one) for one in ("throughput_measured", "start_checked")
        ]
    )
    took = await run_in_threadpool(usage.of_job, parts.store, project_id, job_id)
    return Job.whole(found, *told, took=took if found.attempt else None)


@router.post("/{job_id}/cancel", status_code=202, summary="Cancel a job", responses=transition("cancel"))
def cancel_job(job: JobDep, parts: PartsDep) -> JobSummary:
    """Stop a job for good. A running one saves its state first; its checkpoints stay. Asking twice is no error."""
    return JobSummary.of(change_state(jobs.request_cancel, "cancel", parts, job))


@router.post(
    "/{job_id}/pause", status_code=202, summary="Pause a job", responses={**transition("pause"), **problems(400, 413)}
)
def pause_job(job: JobDep, parts: PartsDep, body: PauseRequest | None = None) -> JobSummary:
    """Leave the machine to others. `keep` says what the job goes on from when it is resumed: its last step, which is saved first and takes as
    long as a step and a checkpoint do, or its last checkpoint, at once and without what came after it; refused where there is none.
    """
    keep = "last_step" if body is None else body.keep
    return JobSummary.of(change_state(partial(jobs.request_pause, keeps=keep), "pause", parts, job))


@router.post(
    "/{job_id}/resume",
    status_code=202,
    summary="Resume a paused or failed job",
    responses={**transition("resume"), **problems(429)},
)
def resume_job(job: JobDep, parts: PartsDep) -> JobSummary:
    """Put a paused job back into the queue, or a failed one whose `error.retryable` is true.

    It goes on from its last checkpoint, and once it ends, its weights are those of an undisturbed run.
    """
    return JobSummary.of(resumed(parts, job))
