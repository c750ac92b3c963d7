"""Labelings: which of two images is better, asked blind, each person in their own order."""

from typing import Annotated, Any

from fastapi import Depends, Path, Query, Response

from alignment_core.reports import HumanComparison
from service.api.context import Parts, PartsDep
from service.api.deletion import DeleterDep
from service.api.idempotency import IN_FLIGHT, OnceDep
from service.api.judgements import human_comparison, results_of
from service.api.labeled_data import make_dataset
from service.api.lookup import summary_or_404, whole_or_404
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.routers import api_router
from service.api.rows import LOCATION
from service.api.schemas.candidates import image_url_of
from service.api.schemas.datasets import Dataset
from service.api.schemas.deleted import Deleted
from service.api.schemas.labelings import (
    Choice,
    Labeling,
    LabelingDatasetRequest,
    LabelingRequest,
    LabelingResults,
    NextQuestions,
    Question,
    QuestionProgress,
    Shown,
    Vote,
    VoteRequest,
)
from service.auth import CallerDep, ProjectDep
from service.errors import ApiError, FieldProblem, invalid_request, not_found
from service.store import labelings
from service.store.ids import is_id
from service.store.pairing import left_of, order_of
from service.store.records.candidates import CandidateImageRecord, LabelingRecord

router = api_router(prefix="/v1/labelings", tags=["labeling"], responses=problems(401, 403, 422, 500, 503))

MISSING = missing("labeling", "lab")
NO_QUESTION = problem(
    404,
    "question_not_found",
    "labeling 'lab_01kaf0h2v7x3m5q8r1s4t6w9yz' has no question 9000: they are numbered from 0 to 219",
    when="No such labeling in this project, or it has no such question",
)


def _labeling(
    labeling_id: Annotated[str, Path(description="Id of a labeling.", examples=["lab_01kaf0h2v7x3m5q8r1s4t6w9yz"])],
    project_id: ProjectDep,
    parts: PartsDep,
) -> LabelingRecord:
    found = labelings.get(parts.store, project_id, labeling_id) if is_id(labeling_id) else None
    if found is None:
        raise not_found("labeling", labeling_id)
    return found


def _annotator(
    caller: CallerDep,
    annotator: Annotated[
        str | None,
        Query(
            pattern=r"^[A-Za-z0-9_.@-]{1,64}$",
            description="Who judges, on a server without keys: `me` when left out. Elsewhere it is the key, or the session's.",
        ),
    ] = None,
) -> str:
    if caller.key_id is None:
        return annotator or "me"
    if annotator not in (None, caller.key_id):
        message = f"on this server who judges is told by the key: leave it out, or write {caller.key_id}"
        raise invalid_request([FieldProblem(pointer="query:annotator", code="annotator_is_key", message=message)])
    return caller.key_id


LabelingDep = Annotated[LabelingRecord, Depends(_labeling)]
AnnotatorDep = Annotated[str, Depends(_annotator)]
NumberPath = Annotated[int, Path(ge=0, lt=2**31, description="Number of a question.", examples=[7])]


@router.post(
    "",
    status_code=201,
    response_model=Labeling,
    summary="Create a labeling",
    response_description="The labeling, whose pairs are fixed",
    responses={
        201: LOCATION,
        **IN_FLIGHT,
        **problem(
            409,
            "candidates_not_drawn",
            "candidates 'cand_01kaf0h2v7x3m5q8r1s4t6w9yz' are running; wait for their end",
            when="The candidates have not ended, or the first request with this `Idempotency-Key` is still at work",
        ),
        **problems(400, 404, 413),
    },
)
def create_labeling(body: LabelingRequest, project_id: ProjectDep, parts: PartsDep, once: OnceDep) -> Response:
    """Make pairs of candidates that people judge. With `between` two models are compared blind on the same prompts and seeds."""

    def create(labeling_id: str | None) -> Labeling:
        _refuse_unknown(parts, project_id, body)
        try:
            found = labelings.create(
                parts.store, project_id=project_id, labeling_id=labeling_id, **body.model_dump(exclude_none=True)
            )
        except labelings.NotDrawn as error:
            if error.state is None:  # deleted just now
                raise not_found("candidates", body.candidates_id) from error
            detail = f"candidates {body.candidates_id!r} are {error.state}; wait for their end"
            raise ApiError(409, "candidates_not_drawn", detail) from error
        except labelings.NoPairs as error:
            message = "these candidates have no two different images of one prompt"
            wanted = message if body.between is None else f"{message} by {' and '.join(body.between)} from one seed"
            field = FieldProblem(pointer="/candidates_id", code="no_pairs", message=wanted)
            raise invalid_request([field]) from error
        return Labeling.of(found, answered=0)

    return once("lab", "/v1/labelings", body.model_dump(mode="json"), create)


def _refuse_unknown(parts: Parts, project_id: str, body: LabelingRequest) -> None:
    spec = whole_or_404("cand", parts.store, project_id, body.candidates_id).spec
    names = [one["name"] for one in spec["contenders"]]
    for index, name in enumerate(body.between or ()):
        if name not in names:
            message = f"{name!r} is none of the contenders: {', '.join(names)}"
            raise invalid_request(
                [FieldProblem(pointer=f"/between/{index}", code="contender_not_found", message=message)]
            )
    if body.report_of is not None:
        kind = "job" if body.report_of.startswith("job_") else "eval"
        summary_or_404(kind, parts.store, project_id, body.report_of)


@router.get("", summary="List labelings")
def list_labelings(
    project_id: ProjectDep, parts: PartsDep, paging: PagingDep, annotator: AnnotatorDep
) -> Page[Labeling]:
    """The project's labelings, newest first, with how far whoever asks is with each."""
    page = labelings.list_labelings(parts.store, project_id, after_id=paging.after, limit=paging.limit)
    answered = labelings.num_answered(parts.store, [one.id for one in page.data], annotator)
    return paging.page([Labeling.of(one, answered[one.id]) for one in page.data], has_more=page.has_more)


@router.get("/{labeling_id}", summary="Look at a labeling", responses=MISSING)
def get_labeling(labeling: LabelingDep, parts: PartsDep, annotator: AnnotatorDep) -> Labeling:
    """What is asked, and how far whoever asks is. Who has said what is in its results."""
    answered = labelings.num_answered(parts.store, [labeling.id], annotator)
    return Labeling.of(labeling, answered[labeling.id])


@router.delete("/{labeling_id}", summary="Delete a labeling", responses=MISSING)
def delete_labeling(labeling: LabelingDep, parts: PartsDep, deleter: DeleterDep) -> Deleted:
    """Remove a labeling with all its votes. Candidates, and data sets that were made of it, stay."""
    return deleter("labeling", labeling.id, lambda: labelings.delete(parts.store, labeling.project_id, labeling.id))


# --- asking --------------------------------------------------------------------------------------------------------


@router.get("/{labeling_id}/next", summary="Read the next questions", responses=MISSING)
def next_questions(
    labeling: LabelingDep,
    parts: PartsDep,
    annotator: AnnotatorDep,
    limit: Annotated[int, Query(ge=1, le=20, description="How many: those after the first, to load them ahead.")] = 1,
) -> NextQuestions:
    """What this person has not answered yet, in their own order. Which model drew an image is not told."""
    answered = {one.number for one in labelings.votes(parts.store, labeling.id, annotator)}
    ordered = order_of(labelings.questions(parts.store, labeling.id), labeling.seed, annotator)
    asked = [one for one in ordered if one.number not in answered][:limit]
    wanted = {found for one in asked for found in (one.first_id, one.second_id)}
    images = labelings.images_of(parts.store, list(wanted))
    if wanted - images.keys():  # they stay as long as the labeling does: it was deleted just now
        raise not_found("labeling", labeling.id)
    data = []
    for one in asked:
        sides = [_shown(parts, images[found]) for found in (one.first_id, one.second_id)]
        left, right = sides if left_of(labeling.seed, annotator, one.number) == "first" else sides[::-1]
        data.append(Question(question=one.number, prompt=images[one.first_id].prompt, left=left, right=right))
    return NextQuestions(data=data, progress=_progress(parts, labeling, annotator))


def _shown(parts: Parts, image: CandidateImageRecord) -> Shown:
    url = image_url_of(parts.base_url, image.job_id, image.id)
    return Shown(image_id=image.id, image_url=url, width=image.width, height=image.height)


def _progress(parts: Parts, labeling: LabelingRecord, annotator: str) -> QuestionProgress:
    votes = labelings.votes(parts.store, labeling.id, annotator)
    last = votes[-1].number if votes else None
    return QuestionProgress(annotator=annotator, answered=len(votes), total=labeling.num_questions, last=last)


@router.put(
    "/{labeling_id}/votes/{question}",
    summary="Answer a question",
    responses={**NO_QUESTION, **problems(400, 413)},
)
def put_vote(
    body: VoteRequest, question: NumberPath, labeling: LabelingDep, parts: PartsDep, annotator: AnnotatorDep
) -> Vote:
    """Say which image is better. Sent again it changes nothing; another choice takes the place of the first."""
    _refuse_unasked(labeling, question)
    first_is_left = left_of(labeling.seed, annotator, question) == "first"
    try:
        labelings.vote(parts.store, labeling, annotator, question, _of_images(body.choice, first_is_left))
    except labelings.LabelingGone as error:
        raise not_found("labeling", labeling.id) from error
    progress = _progress(parts, labeling, annotator)
    return Vote(labeling_id=labeling.id, question=question, choice=body.choice, progress=progress)


@router.delete("/{labeling_id}/votes/{question}", summary="Take an answer back", responses=NO_QUESTION)
def delete_vote(question: NumberPath, labeling: LabelingDep, parts: PartsDep, annotator: AnnotatorDep) -> Vote:
    """Undo: the question is asked again in its place. Taking back what was not said is no error."""
    _refuse_unasked(labeling, question)
    labelings.take_back(parts.store, labeling.id, annotator, question)
    progress = _progress(parts, labeling, annotator)
    return Vote(labeling_id=labeling.id, question=question, choice=None, progress=progress)


def _refuse_unasked(labeling: LabelingRecord, question: int) -> None:
    if question >= labeling.num_questions:
        detail = f"labeling {labeling.id!r} has no question {question}: they are numbered from 0 to {labeling.num_questions - 1}"
        raise ApiError(404, "question_not_found", detail)


def _of_images(choice: Choice, first_is_left: bool) -> labelings.Choice:
    """The choice of a side as one of an image."""
    match choice:
        case "left":
            return "first" if first_is_left else "second"
        case "right":
            return "second" if first_is_left else "first"
        case _:
            return choice


# --- what comes of it ----------------------------------------------------------------------------------------------


@router.get("/{labeling_id}/results", summary="Read what came of a labeling", responses=MISSING)
def get_labeling_results(labeling: LabelingDep, parts: PartsDep) -> LabelingResults:
    """How much was judged, how far people agree with themselves and with each other, and who won a blind comparison."""
    votes = labelings.votes(parts.store, labeling.id)
    return results_of(labeling, labelings.questions(parts.store, labeling.id), votes)


@router.post(
    "/{labeling_id}/dataset",
    status_code=201,
    response_model=Dataset,
    summary="Make a data set of a labeling",
    response_description="The data set, being checked",
    responses={
        201: LOCATION,
        **MISSING,
        **problem(
            409,
            "nothing_judged",
            "labeling 'lab_01kaf0h2v7x3m5q8r1s4t6w9yz' cannot be made a data set: nobody has judged a pair of it",
            when="Nobody has judged a pair; or the candidates were deleted meanwhile (`candidates_deleted`), or the first request with "
            "this `Idempotency-Key` is still at work",
        ),
        **problems(400, 413, 507),
    },
)
def make_labeling_dataset(
    body: LabelingDatasetRequest, labeling: LabelingDep, parts: PartsDep, once: OnceDep
) -> Response:
    """Make preference pairs of the votes so far, as an upload of the normal kind that a worker checks.

    Several votes on a pair make a soft label; pairs of one prompt share a group. It says where it comes from in `provenance`.
    """

    def create(dataset_id: str | None) -> Dataset:
        return make_dataset(parts, labeling, body.name, body.both_bad, dataset_id)

    request: dict[str, Any] = {"labeling_id": labeling.id, **body.model_dump(mode="json")}
    return once("ds", "/v1/datasets", request, create)


def human_comparisons(parts: Parts, project_id: str, subject_id: str) -> list[HumanComparison]:
    """What people said blind, for the report of a job or an evaluation."""
    found = []
    for one in labelings.reporting_to(parts.store, project_id, subject_id):
        votes = labelings.votes(parts.store, one.id)
        if (told := human_comparison(one, labelings.questions(parts.store, one.id), votes)) is not None:
            found.append(told)
    return found
