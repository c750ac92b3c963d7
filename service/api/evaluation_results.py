"""What an evaluation says and leaves: events, logs, the report, pictures, scores."""

from typing import Annotated, Any

from fastapi import Path, Query, Request, Response

from alignment_core.reports import ProofReport
from service.api.context import Parts, PartsDep
from service.api.downloads import file_responses, send_file, send_page, send_picture
from service.api.events import STREAM_RESPONSE, LastEventId, events_of
from service.api.labelings import human_comparisons
from service.api.lookup import EvaluationDep
from service.api.paging import Page, PagingDep
from service.api.people_on_page import with_people
from service.api.problems import missing, problem, problems
from service.api.routers import api_router
from service.api.rows import logs_of
from service.api.schemas.runs import JobEvent, Logs, Sample
from service.errors import ApiError, not_found
from service.store import outputs, proofs
from service.store.records.jobs import JobSummary

router = api_router(prefix="/v1/evaluations", tags=["evaluations"], responses=problems(401, 403, 422, 500, 503))

MISSING = missing("evaluation", "eval")
NO_REPORT = problem(
    404,
    "report_not_found",
    "evaluation 'eval_01kaf0h2v7x3m5q8r1s4t6w9yz' has no report: it is running",
    when="No such evaluation in this project, or it has not ended well",
)


@router.get(
    "/{evaluation_id}/events",
    response_model=Page[JobEvent],
    summary="Read or follow an evaluation's events",
    responses={**STREAM_RESPONSE, **MISSING},
)
async def list_evaluation_events(
    request: Request, evaluation: EvaluationDep, parts: PartsDep, paging: PagingDep, last_event_id: LastEventId = None
) -> Page[JobEvent] | Response:
    """What happened, oldest first; with `Accept: text/event-stream` a stream, as that of a job."""
    return await events_of(request, evaluation, parts, paging, last_event_id)


@router.get("/{evaluation_id}/logs", summary="Read an evaluation's logs", responses=MISSING)
def get_evaluation_logs(evaluation: EvaluationDep, parts: PartsDep) -> Logs:
    """The end of what each attempt's process printed."""
    return logs_of(parts, evaluation)


@router.get(
    "/{evaluation_id}/report",
    summary="Read the report",
    response_description="Every contender against the anchor, and all that it was made with",
    responses=NO_REPORT,
)
def get_evaluation_report(evaluation: EvaluationDep, parts: PartsDep) -> ProofReport:
    """Which model is better on the same prompts and seeds, by how much, and how was that found?"""
    report = ProofReport.model_validate(_proof(parts, evaluation).report)
    told = human_comparisons(parts, evaluation.project_id, evaluation.id)
    return report.model_copy(update={"human": told})


@router.get(
    "/{evaluation_id}/report.html",
    response_class=Response,
    summary="Read one comparison as a page",
    responses={**file_responses("text/html", "evaluation", "eval", redirects=False), **NO_REPORT},
)
@router.head("/{evaluation_id}/report.html", include_in_schema=False)
def get_evaluation_page(
    request: Request,
    evaluation: EvaluationDep,
    parts: PartsDep,
    contender: Annotated[
        str | None,
        Query(max_length=64, description="Which contender against the anchor; the first one when left out."),
    ] = None,
) -> Response:
    """The report of a contender against the anchor for people: one HTML page, which loads nothing and runs nothing."""
    number = _number_of(_proof(parts, evaluation).report, contender)
    found = outputs.get_report(parts.store, evaluation.project_id, evaluation.id, step=number)
    if found is None or found.page is None:
        raise not_found("contender", contender or "")
    told = human_comparisons(parts, evaluation.project_id, evaluation.id)
    return send_page(request, with_people(parts, found.page, told))


def _number_of(report: dict[str, Any], contender: str | None) -> int:
    """The place of a contender among those that are compared, counted from 1."""
    names = [one["policy"]["label"] for one in report["comparisons"]]
    if contender is None:
        return 1
    if contender not in names:
        others = f"those that are compared with {report['anchor']!r} are {', '.join(names)}"
        raise ApiError(404, "contender_not_found", f"{contender!r} has no comparison of its own: {others}")
    return 1 + names.index(contender)


@router.get("/{evaluation_id}/pictures", summary="List an evaluation's pictures", responses=MISSING)
def list_evaluation_pictures(evaluation: EvaluationDep, parts: PartsDep, paging: PagingDep) -> Page[Sample]:
    """A picture for each contender beside the anchor, in the order of the report; `step` counts them from 1."""
    found = outputs.list_samples(parts.store, evaluation.project_id, evaluation.id)
    return paging.slice([Sample.of_evaluation(sample, parts.base_url) for sample in found])


@router.get(
    "/{evaluation_id}/pictures/{picture_id}.png",
    response_class=Response,
    summary="Download a picture",
    responses=file_responses("image/png", "picture", "smp"),
)
@router.head("/{evaluation_id}/pictures/{picture_id}.png", include_in_schema=False)
def get_evaluation_picture(
    request: Request,
    evaluation: EvaluationDep,
    parts: PartsDep,
    picture_id: Annotated[str, Path(description="Id of a picture.", examples=["smp_01kaf0nd3f5h7k9m1p3r5t7v9x"])],
) -> Response:
    """The picture as PNG, or a redirect to it."""
    found = outputs.list_samples(parts.store, evaluation.project_id, evaluation.id)
    picture = next((one for one in found if one.id == picture_id), None)
    if picture is None:
        raise not_found("picture", picture_id)
    return send_picture(request, parts, picture, f"{evaluation.id}-{picture.step}.png")


@router.get(
    "/{evaluation_id}/scores.parquet",
    response_class=Response,
    summary="Download every score",
    responses={**file_responses("application/octet-stream", "evaluation", "eval"), **NO_REPORT},
)
@router.head("/{evaluation_id}/scores.parquet", include_in_schema=False)
def get_evaluation_scores(request: Request, evaluation: EvaluationDep, parts: PartsDep) -> Response:
    """A row for each image and judge, from which `python -m alignment_core standings` computes the table again."""
    scores = _proof(parts, evaluation).scores
    assert scores is not None, "an evaluation's report is stored with its scores"
    name = f"{evaluation.id}-scores.parquet"
    return send_file(request, parts, scores, name, "application/octet-stream")


def _proof(parts: Parts, evaluation: JobSummary) -> proofs.ProofRecord:
    found = proofs.get_proof(parts.store, evaluation.project_id, evaluation.id)
    if found is None:
        detail = f"evaluation {evaluation.id!r} has no report: it is {evaluation.state}"
        raise ApiError(404, "report_not_found", detail)
    return found
