"""What is asked of a job while it runs: a checkpoint, a picture, a probe."""

from fastapi import Response

from service.api.context import PartsDep
from service.api.idempotency import IN_FLIGHT, OnceDep
from service.api.lookup import JobDep
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.routers import api_router
from service.api.schemas.actions import ActionRequest, JobAction
from service.errors import ApiError, not_found
from service.store import actions
from service.store.states import InvalidTransition

router = api_router(prefix="/v1/jobs", tags=["jobs"], responses=problems(401, 403, 422, 500, 503))

ENDED = problem(
    409, "invalid_transition", "the job is succeeded: nothing runs that could do it", when="The job has ended"
)


@router.post(
    "/{job_id}/actions",
    status_code=201,
    response_model=JobAction,
    summary="Ask a job for a checkpoint, a picture or a probe",
    response_description="The request, which waits for the run",
    responses={**missing("job", "job"), **IN_FLIGHT, **ENDED, **problems(400, 413)},
)
def ask_job(body: ActionRequest, job: JobDep, parts: PartsDep, once: OnceDep) -> Response:
    """Have the run do something after its next step, in all its processes after the same one.

    The request is kept until the run has answered with the event `action_answered`: a job that is queued or paused does it once it runs, and one
    whose worker is lost in its next attempt.
    """

    def create(action_id: str | None) -> JobAction:
        try:
            found = actions.ask(parts.store, job.project_id, job.id, body.action, action_id)
        except InvalidTransition as error:
            why = error.reason or f"the job is {error.state}: nothing runs that could do it"
            raise ApiError(409, "invalid_transition", why) from error
        except actions.TooManyWaiting as error:
            detail = f"{actions.MOST_WAITING} requests of the job wait for its run already"
            raise ApiError(409, "too_many_actions", detail) from error
        if found is None:  # deleted since it was looked up
            raise not_found("job", job.id)
        return JobAction.of(found)

    return once("act", f"/v1/jobs/{job.id}/actions", {"job": job.id, **body.model_dump(mode="json")}, create)


@router.get("/{job_id}/actions", summary="List what was asked of a job", responses=missing("job", "job"))
def list_actions(job: JobDep, parts: PartsDep, paging: PagingDep) -> Page[JobAction]:
    """What was asked of the job while it ran, and what the run answered; the earliest first."""
    return paging.slice([JobAction.of(one) for one in actions.list_actions(parts.store, job.project_id, job.id)])
