"""Candidates: images that models draw of prompts, for people to judge."""

from typing import Annotated, Any

from fastapi import Body, Path, Query, Request, Response

from alignment_core.spec import Name
from service.api.contests import create_once
from service.api.context import PartsDep
from service.api.downloads import file_responses, send_picture
from service.api.events import STREAM_RESPONSE, LastEventId, events_of
from service.api.idempotency import IN_FLIGHT, OnceDep
from service.api.lookup import CandidatesDep, CandidatesPath
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problems
from service.api.proof_admission import validated
from service.api.routers import api_router
from service.api.rows import (
    LOCATION,
    METADATA_PARAMETER,
    MetadataDep,
    change_state,
    logs_of,
    resumed,
    transition,
    waited_for,
)
from service.api.schemas.candidate_examples import CREATE_EXAMPLE
from service.api.schemas.candidates import (
    CandidateImage,
    Candidates,
    CandidatesRequest,
    CandidatesSummary,
    CandidatesValidation,
)
from service.api.schemas.runs import JobEvent, Logs
from service.api.waiting import LONGEST_WAIT_SECONDS
from service.auth import ProjectDep
from service.errors import not_found, not_json
from service.scopes import needs
from service.store import candidates, jobs
from service.store.ids import is_id
from service.store.states import JobState

router = api_router(prefix="/v1", tags=["labeling"], responses=problems(401, 403, 422, 500, 503))

MISSING = missing("candidates", "cand")


@router.post(
    "/candidates",
    status_code=201,
    response_model=Candidates,
    summary="Have candidates drawn",
    response_description="The candidates, queued, with their spec written out",
    responses={201: LOCATION, **IN_FLIGHT, **problems(400, 413, 429)},
)
def create_candidates(body: CandidatesRequest, project_id: ProjectDep, parts: PartsDep, once: OnceDep) -> Response:
    """Queue images of one or more models on the same prompts and seeds, for people to judge.

    Contenders are those of an evaluation. What the project has drawn before with the same files and settings is not drawn again.
    """
    return create_once(parts, project_id, once, body, Candidates.whole)


@router.post(
    "/candidates/validate",
    dependencies=[needs("read")],  # it stores nothing and starts nothing
    summary="Check candidates without drawing them",
    response_description="Whether they would be taken, and what they would take",
    responses=problems(400, 413),
)
def validate_candidates(
    body: Annotated[Any, Body(description="The body of `POST /v1/candidates`.", examples=[CREATE_EXAMPLE])],
    request: Request,
    project_id: ProjectDep,
    parts: PartsDep,
) -> CandidatesValidation:
    """Say everything that is wrong in a spec, and what it would take of memory, time and storage. Nothing is stored or starts.

    A spec with mistakes is answered with 200 and `valid: false`; 422 means that the body is not JSON.
    """
    if isinstance(body, bytes):  # what FastAPI leaves of a body of another media type
        raise not_json(request)
    return validated(parts, project_id, body, CandidatesRequest, CandidatesValidation)


@router.get("/candidates", summary="List candidates", openapi_extra={"parameters": [METADATA_PARAMETER]})
def list_candidates(
    project_id: ProjectDep,
    parts: PartsDep,
    paging: PagingDep,
    metadata: MetadataDep,
    status: Annotated[list[JobState] | None, Query(description="Only those in one of these states.")] = None,
) -> Page[CandidatesSummary]:
    """The project's candidates, newest first, without their specs."""
    page = jobs.list_jobs(
        parts.store,
        project_id,
        kind="cand",
        after_id=paging.after,
        limit=paging.limit,
        states=status,
        metadata=metadata,
    )
    return paging.page([CandidatesSummary.of(one) for one in page.data], has_more=page.has_more)


@router.get("/candidates/{candidates_id}", summary="Look at candidates, or wait for them", responses=MISSING)
async def get_candidates(
    candidates_id: CandidatesPath,
    request: Request,
    project_id: ProjectDep,
    parts: PartsDep,
    wait: Annotated[
        float, Query(ge=0, le=LONGEST_WAIT_SECONDS, description="Seconds to wait for their end before answering.")
    ] = 0,
) -> Candidates:
    """Candidates as they stand."""
    return Candidates.whole(await waited_for("cand", parts, project_id, candidates_id, wait, request))


@router.post(
    "/candidates/{candidates_id}/cancel",
    status_code=202,
    summary="Cancel candidates",
    responses=transition("cancel", "candidates", "cand"),
)
def cancel_candidates(found: CandidatesDep, parts: PartsDep) -> CandidatesSummary:
    """Stop drawing for good; the images that are there stay. Asking twice is no error."""
    return CandidatesSummary.of(change_state(jobs.request_cancel, "cancel", parts, found, "candidates"))


@router.post(
    "/candidates/{candidates_id}/pause",
    status_code=202,
    summary="Pause candidates",
    responses=transition("pause", "candidates", "cand"),
)
def pause_candidates(found: CandidatesDep, parts: PartsDep) -> CandidatesSummary:
    """Leave the machine to others after the batch that is being drawn, which is kept like all before it."""
    return CandidatesSummary.of(change_state(jobs.request_pause, "pause", parts, found, "candidates"))


@router.post(
    "/candidates/{candidates_id}/resume",
    status_code=202,
    summary="Resume paused or failed candidates",
    responses={**transition("resume", "candidates", "cand"), **problems(429)},
)
def resume_candidates(found: CandidatesDep, parts: PartsDep) -> CandidatesSummary:
    """Queue candidates again whose `error.retryable` is true. What they have is not drawn again."""
    return CandidatesSummary.of(resumed(parts, found, "candidates"))


# --- what they say and leave ---------------------------------------------------------------------------------------


@router.get(
    "/candidates/{candidates_id}/events",
    response_model=Page[JobEvent],
    summary="Read or follow the events of candidates",
    responses={**STREAM_RESPONSE, **MISSING},
)
async def list_candidates_events(
    request: Request, found: CandidatesDep, parts: PartsDep, paging: PagingDep, last_event_id: LastEventId = None
) -> Page[JobEvent] | Response:
    """What happened, oldest first; with `Accept: text/event-stream` a stream, as that of a job."""
    return await events_of(request, found, parts, paging, last_event_id)


@router.get("/candidates/{candidates_id}/logs", summary="Read the logs of candidates", responses=MISSING)
def get_candidates_logs(found: CandidatesDep, parts: PartsDep) -> Logs:
    """The end of what each attempt's process printed."""
    return logs_of(parts, found)


@router.get("/candidates/{candidates_id}/images", summary="List candidates' images", responses=MISSING)
def list_candidate_images(
    found: CandidatesDep,
    parts: PartsDep,
    paging: PagingDep,
    contender: Annotated[Name | None, Query(description="Only those of this model.")] = None,
    position: Annotated[
        int | None, Query(ge=0, lt=2**31, description="Only those of the prompt at this place, from 0.")
    ] = None,
) -> Page[CandidateImage]:
    """The images that are there, in the order in which they came, each with model, prompt, seed, starting noise and settings."""
    page = candidates.list_images(
        parts.store,
        found.project_id,
        found.id,
        after_id=paging.after,
        limit=paging.limit,
        contender=contender,
        position=position,
    )
    recipes = candidates.recipes_of(parts.store, found.project_id, found.id)
    shown = [CandidateImage.of(one, recipes[one.contender, one.attempt], parts.base_url) for one in page.data]
    return paging.page(shown, has_more=page.has_more)


@router.get(
    "/candidates/{candidates_id}/images/{image_id}.png",
    response_class=Response,
    summary="Download an image",
    responses=file_responses("image/png", "candidate_image", "img"),
)
@router.head("/candidates/{candidates_id}/images/{image_id}.png", include_in_schema=False)
def get_candidate_image(
    request: Request,
    found: CandidatesDep,
    parts: PartsDep,
    image_id: Annotated[str, Path(description="Id of an image.", examples=["img_01kaf0nd3f5h7k9m1p3r5t7v9x"])],
) -> Response:
    """The image as PNG, or a redirect to it."""
    image = candidates.get_image(parts.store, found.project_id, found.id, image_id) if is_id(image_id) else None
    if image is None:
        raise not_found("candidate_image", image_id)
    return send_picture(request, parts, image, f"{image.id}.png")
