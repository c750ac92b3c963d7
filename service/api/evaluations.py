"""Evaluations: models against each other, that need not have been trained here."""

from typing import Annotated, Any

from fastapi import Body, Query, Request, Response
from fastapi.concurrency import run_in_threadpool

from alignment_core.spec import ProofSpec
from service.api.contenders import resolved_contenders
from service.api.contests import create_once
from service.api.context import Parts, PartsDep
from service.api.idempotency import IN_FLIGHT, OnceDep
from service.api.lookup import EvaluationDep, EvaluationPath, WholeEvaluationDep
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.proof_admission import validated
from service.api.quotas import RATE_LIMIT_HEADERS, submit_headers
from service.api.routers import api_router
from service.api.rows import (
    LOCATION,
    METADATA_PARAMETER,
    MetadataDep,
    change_state,
    resumed,
    transition,
    waited_for,
)
from service.api.schemas.evaluation_examples import CREATE_EXAMPLE
from service.api.schemas.evaluations import (
    Evaluation,
    EvaluationRequest,
    EvaluationSummary,
    EvaluationValidation,
    Verification,
    VerificationRequest,
)
from service.api.waiting import LONGEST_WAIT_SECONDS
from service.auth import ProjectDep
from service.errors import ApiError, not_found, not_json
from service.scopes import needs
from service.store import jobs, proofs
from service.store.records.jobs import JobRecord
from service.store.states import JobState

router = api_router(prefix="/v1/evaluations", tags=["evaluations"], responses=problems(401, 403, 422, 500, 503))

MISSING = missing("evaluation", "eval")


@router.post(
    "",
    status_code=201,
    response_model=Evaluation,
    summary="Create an evaluation",
    response_description="The evaluation, queued, with its spec written out",
    responses={201: LOCATION, **IN_FLIGHT, **problems(400, 413, 429)},
)
def create_evaluation(body: EvaluationRequest, project_id: ProjectDep, parts: PartsDep, once: OnceDep) -> Response:
    """Queue an evaluation of two or more models on the same prompts and seeds.

    A contender is a base model, a checkpoint of a job, uploaded or published weights on a base model, or a LoRA at a
    strength. Every id in it is looked up before it is queued.
    """
    return create_once(parts, project_id, once, body, lambda row: _whole(parts, row))


@router.post(
    "/validate",
    dependencies=[needs("read")],  # it stores nothing and starts nothing
    summary="Check an evaluation without running it",
    response_description="Whether it would be taken, and what it would take",
    responses=problems(400, 413),
)
def validate_evaluation(
    body: Annotated[Any, Body(description="The body of `POST /v1/evaluations`.", examples=[CREATE_EXAMPLE])],
    request: Request,
    project_id: ProjectDep,
    parts: PartsDep,
) -> EvaluationValidation:
    """Say everything that is wrong in an evaluation, and what it would take of memory, time and storage. Nothing is stored or starts.

    A spec with mistakes is answered with 200 and `valid: false`; 422 means that the body is not JSON.
    """
    if isinstance(body, bytes):  # what FastAPI leaves of a body of another media type
        raise not_json(request)
    return validated(parts, project_id, body, EvaluationRequest, EvaluationValidation)


@router.get("", summary="List evaluations", openapi_extra={"parameters": [METADATA_PARAMETER]})
def list_evaluations(
    project_id: ProjectDep,
    parts: PartsDep,
    paging: PagingDep,
    metadata: MetadataDep,
    status: Annotated[list[JobState] | None, Query(description="Only those in one of these states.")] = None,
) -> Page[EvaluationSummary]:
    """The project's evaluations, newest first, without their specs."""
    page = jobs.list_jobs(
        parts.store,
        project_id,
        kind="eval",
        after_id=paging.after,
        limit=paging.limit,
        states=status,
        metadata=metadata,
    )
    return paging.page([EvaluationSummary.of(one) for one in page.data], has_more=page.has_more)


@router.get("/{evaluation_id}", summary="Look at an evaluation, or wait for it", responses=MISSING)
async def get_evaluation(
    evaluation_id: EvaluationPath,
    request: Request,
    project_id: ProjectDep,
    parts: PartsDep,
    wait: Annotated[
        float, Query(ge=0, le=LONGEST_WAIT_SECONDS, description="Seconds to wait for its end before answering.")
    ] = 0,
) -> Evaluation:
    """An evaluation as it stands, with what was drawn of it once more."""
    found = await waited_for("eval", parts, project_id, evaluation_id, wait, request)
    return await run_in_threadpool(_whole, parts, found)


def _whole(parts: Parts, row: JobRecord) -> Evaluation:
    proof = proofs.get_proof(parts.store, row.project_id, row.id)
    rows = proofs.verifications_of(parts.store, row.project_id, row.id)
    reports = proofs.reports_of(parts.store, row.project_id, [one.id for one in rows])
    verifications = [Verification.of(one, row.id, reports.get(one.id)) for one in rows]
    return Evaluation.whole(row, None if proof is None else proof.report, verifications, parts.base_url)


@router.post(
    "/{evaluation_id}/cancel",
    status_code=202,
    summary="Cancel an evaluation",
    responses=transition("cancel", "evaluation", "eval"),
)
def cancel_evaluation(evaluation: EvaluationDep, parts: PartsDep) -> EvaluationSummary:
    """Stop an evaluation for good, or, once it has ended, its verifications that have not. Asking twice is no error."""
    if evaluation.is_terminal and proofs.cancel_verifications(parts.store, evaluation.project_id, evaluation.id):
        return EvaluationSummary.of(evaluation)
    return EvaluationSummary.of(change_state(jobs.request_cancel, "cancel", parts, evaluation, "evaluation"))


@router.post(
    "/{evaluation_id}/pause",
    status_code=202,
    summary="Pause an evaluation",
    responses=transition("pause", "evaluation", "eval"),
)
def pause_evaluation(evaluation: EvaluationDep, parts: PartsDep) -> EvaluationSummary:
    """Leave the machine to others after the batch that is being drawn, which is kept like all before it."""
    return EvaluationSummary.of(change_state(jobs.request_pause, "pause", parts, evaluation, "evaluation"))


@router.post(
    "/{evaluation_id}/resume",
    status_code=202,
    summary="Resume a paused or failed evaluation",
    responses={**transition("resume", "evaluation", "eval"), **problems(429)},
)
def resume_evaluation(evaluation: EvaluationDep, parts: PartsDep) -> EvaluationSummary:
    """Queue an evaluation again whose `error.retryable` is true. What it has drawn is not drawn again."""
    return EvaluationSummary.of(resumed(parts, evaluation, "evaluation"))


@router.post(
    "/{evaluation_id}/verify",
    status_code=202,
    response_model=Verification,
    summary="Draw some of an evaluation once more",
    response_description="The verification, queued; its outcome will be at the evaluation",
    responses={
        202: {"headers": RATE_LIMIT_HEADERS},
        **MISSING,
        **problem(
            409,
            "nothing_to_verify",
            "evaluation 'eval_01kaf0h2v7x3m5q8r1s4t6w9yz' has no scores: it is running",
            when="It has not ended well, or the first request with this `Idempotency-Key` is still at work",
        ),
        **problems(400, 413, 429),
    },
)
def verify_evaluation(
    body: VerificationRequest, evaluation: WholeEvaluationDep, parts: PartsDep, once: OnceDep
) -> Response:
    """Have a worker draw and score a sample of the images again, and compare hashes and scores.

    Which prompts are drawn follows from the hash of the scores. The outcome is at the evaluation: `identical`, `close` or `different`.
    """

    def create(verification_id: str | None) -> Verification:
        if proofs.get_proof(parts.store, evaluation.project_id, evaluation.id) is None:
            detail = f"evaluation {evaluation.id!r} has no scores: it is {evaluation.state}"
            raise ApiError(409, "nothing_to_verify", detail)
        resolved_contenders(parts, evaluation.project_id, ProofSpec.model_validate(evaluation.spec))
        row = proofs.create_verification(parts.store, evaluation, body.num_prompts, verification_id)
        if row is None:  # deleted since it was looked up
            raise not_found("evaluation", evaluation.id)
        parts.bell.ring(row.id)
        return Verification.of(row, evaluation.id, None)

    place, same = f"/v1/evaluations/{evaluation.id}", {"evaluation": evaluation.id, **body.model_dump(mode="json")}
    answer = once("vfy", place, same, create, status=202)
    answer.headers.update(submit_headers(parts, evaluation.project_id))
    return answer
