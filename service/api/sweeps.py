"""Sweeps: create, list, look at the score table, cancel."""

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import Path, Response
from pydantic import ValidationError

from alignment_core.spec import JobSpec
from alignment_core.spec.points import Point, points_of, with_point
from service.api.admission import unfit
from service.api.context import Parts, PartsDep
from service.api.idempotency import OnceDep
from service.api.jobs import what_is_queued
from service.api.named_models import with_named_model
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.quotas import RATE_LIMIT_HEADERS, submit_headers
from service.api.routers import api_router
from service.api.schemas.sweeps import SWEEP_ID, Sweep, SweepRequest, SweepSummary
from service.api.sweep_table import table_of
from service.auth import ProjectDep
from service.errors import ApiError, FieldProblem, invalid_request, not_found
from service.store import sweeps
from service.store.ancestry import CheckpointGone
from service.store.ids import is_id
from service.store.queueing import DatasetGone
from service.store.records.sweeps import SweepRecord

router = api_router(prefix="/v1/sweeps", tags=["sweeps"], responses=problems(401, 403, 422, 500, 503))

MOST_BYTES = 64 * 2**20  # of all trials together: a MiB for each of the most that there may be
LOCATION = {
    "headers": {
        "Location": {"description": "Where the new sweep is.", "schema": {"type": "string"}},
        **RATE_LIMIT_HEADERS,
    }
}
SweepPath = Annotated[str, Path(description="Id of a sweep.", examples=[SWEEP_ID])]


@router.post(
    "",
    status_code=201,
    response_model=Sweep,
    summary="Create a sweep",
    response_description="The sweep, whose first jobs are queued",
    responses={
        201: LOCATION,
        **problem(
            409,
            "too_many_sweeps",
            "20 sweeps of this project have jobs to queue, the most that may; let one end, or cancel it",
            when="As many sweeps as may have jobs to queue, or the first request with this `Idempotency-Key` is still at work",
        ),
        **problems(400, 413),
    },
)
def create_sweep(body: SweepRequest, project_id: ProjectDep, parts: PartsDep, once: OnceDep) -> Response:
    """Run a job for each point of a search, at most `at_once` at the same time.

    All trials are looked at as jobs are before any is queued: 422 names the trial and the field. Whoever of the service lives queues the next one
    when one has ended, and a job whose worker is lost goes on as jobs do.
    """

    def create(sweep_id: str | None) -> Sweep:
        found = _kept(parts, project_id, body, sweep_id)
        sweeps.feed_now_or_later(parts.store, found.id, parts.bell.ring)
        return _whole(parts, project_id, found.id)

    answer = once("swp", "/v1/sweeps", body.model_dump(mode="json"), create)
    answer.headers.update(submit_headers(parts, project_id))
    return answer


def _kept(parts: Parts, project_id: str, body: SweepRequest, sweep_id: str | None) -> SweepRecord:
    most = parts.settings.open_sweeps_per_project
    try:
        return sweeps.create(
            parts.store,
            project_id=project_id,
            trials=_trials(parts, project_id, body),
            search=body.search.model_dump(mode="json"),
            at_once=body.at_once,
            name=body.name,
            metadata=body.metadata,
            sweep_id=sweep_id,
            most_open=most,
        )
    except sweeps.TooMany as error:
        detail = f"{most} sweeps of this project have jobs to queue, the most that may; let one end, or cancel it"
        raise ApiError(409, "too_many_sweeps", detail) from error
    except (DatasetGone, CheckpointGone):  # deleted just now
        _trials(parts, project_id, body)
        raise


def _trials(parts: Parts, project_id: str, body: SweepRequest) -> list[tuple[Point, dict[str, Any]]]:
    """Each point with what its job needs; raises 422 with everything that keeps this server from running any of them."""
    named, unnamed = with_named_model(parts, project_id, body.spec)  # once: a name may move on between two trials
    if unnamed:
        raise invalid_request(unnamed)
    base, points = named.model_dump(mode="json"), points_of(body.search)
    _refuse_large(base, points)
    specs = {number: _spec_at(parts, project_id, base, point) for number, point in enumerate(points)}
    wrong = [one for number, spec in specs.items() for one in _problems(parts, project_id, number, spec)]
    if wrong:
        raise invalid_request(wrong)
    name = body.name or "trial"
    return [
        (
            point,
            {
                **what_is_queued(parts, project_id, spec),
                "name": f"{name} {number}"[:200],
                "metadata": body.metadata,
            },
        )
        for (number, spec), point in zip(specs.items(), points, strict=True)
        if isinstance(spec, JobSpec)
    ]


def _refuse_large(base: Point, points: Sequence[Point]) -> None:
    """Every trial is looked at and kept as a spec of its own, with all the prompts in it."""
    base_bytes = len(json.dumps(base))
    size = sum(base_bytes + len(json.dumps(point)) for point in points)
    if size > MOST_BYTES:
        message = (
            f"the specs of {len(points)} trials have {size:,} bytes, at most {MOST_BYTES:,} are kept: upload long lists of prompts "
            "as a prompt set, and name it"
        )
        raise invalid_request([FieldProblem(pointer="/spec", code="sweep_too_large", message=message)])


def _spec_at(parts: Parts, project_id: str, base: dict[str, Any], point: Point) -> JobSpec | str:
    """The trial's spec, or why it is none."""
    try:
        spec, unnamed = with_named_model(parts, project_id, JobSpec.model_validate(with_point(base, point)))
        return unnamed[0].message if unnamed else spec
    except KeyError as error:
        return f"the spec has no field {error.args[0]}"
    except ValidationError as error:
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _problems(parts: Parts, project_id: str, number: int, spec: JobSpec | str) -> Iterator[FieldProblem]:
    if isinstance(spec, str):
        yield FieldProblem(pointer="/search", code="trial_invalid", message=f"trial {number}: {spec}")
        return
    for one in unfit(parts, project_id, spec):
        yield one.model_copy(update={"message": f"trial {number}: {one.message}"})


@router.get("", summary="List sweeps")
def list_sweeps(project_id: ProjectDep, parts: PartsDep, paging: PagingDep) -> Page[SweepSummary]:
    """The project's sweeps, newest first, without their trials."""
    page = sweeps.list_sweeps(parts.store, project_id, after_id=paging.after, limit=paging.limit)
    return paging.page([SweepSummary.of(one) for one in page.data], has_more=page.has_more)


@router.get("/{sweep_id}", summary="Look at a sweep", responses=missing("sweep", "swp"))
def get_sweep(sweep_id: SweepPath, project_id: ProjectDep, parts: PartsDep) -> Sweep:
    """Every trial with its job, its scores and their intervals, beside the model that all started from."""
    return _whole(parts, project_id, sweep_id)


@router.post("/{sweep_id}/cancel", status_code=202, summary="Cancel a sweep", responses=missing("sweep", "swp"))
def cancel_sweep(sweep_id: SweepPath, project_id: ProjectDep, parts: PartsDep) -> SweepSummary:
    """Queue no further trial, and cancel the jobs that have not ended; what they saved stays. Asking twice is no error."""
    found = sweeps.request_cancel(parts.store, project_id, sweep_id) if is_id(sweep_id) else None
    return SweepSummary.of(_or_404(found, sweep_id))


def _whole(parts: Parts, project_id: str, sweep_id: str) -> Sweep:
    found = _or_404(sweeps.get(parts.store, project_id, sweep_id) if is_id(sweep_id) else None, sweep_id)
    return Sweep.whole(found, table_of(found, sweeps.trials_of(parts.store, found.id)))


def _or_404(found: SweepRecord | None, sweep_id: str) -> SweepRecord:
    if found is None:
        raise not_found("sweep", sweep_id)
    return found
