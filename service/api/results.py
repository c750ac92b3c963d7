"""What a run leaves: metrics, sample images, the evaluation report, the manifest and logs."""

import csv
import difflib
import io
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Annotated, Any, Literal

from fastapi import Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from alignment_core.events import FileRecord
from alignment_core.reports import EvaluationReport
from alignment_core.spec import JobSpec, reward_name, sha256_of_json
from service.api.context import Parts, PartsDep
from service.api.downloads import file_responses, send_page, send_picture
from service.api.export_downloads import send_archive
from service.api.labelings import human_comparisons
from service.api.lookup import JobDep, WholeJobDep, whole_or_404
from service.api.paging import NewestFirst, Page, PagingDep
from service.api.people_on_page import with_people
from service.api.problems import missing, problem, problems
from service.api.routers import api_router
from service.api.rows import logs_of
from service.api.schemas.runs import (
    Logs,
    Manifest,
    ManifestCheckpoint,
    ManifestDataset,
    MetricPoint,
    Metrics,
    Sample,
)
from service.errors import ApiError, FieldProblem, invalid_request, not_found
from service.store import datasets, event_lookup, outputs
from service.store.catalog import stored_datasets
from service.store.ids import is_id
from service.store.metrics import HELD_OUT, VALIDATION, Figures, Thinning, metrics, walk
from service.store.output_pages import get_sample, page_of_samples
from service.store.records.jobs import JobRecord, JobSummary

router = api_router(prefix="/v1/jobs", tags=["runs"], responses=problems(401, 422, 500, 503))

LARGEST_STEP = 2**53
CSV_LINES_AT_ONCE = 2000
MOST_UNKNOWN = 3  # names that are told of in one answer

CSV_RESPONSE: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The figures, as JSON or as a table with a column for each key",
        "content": {"text/csv": {"schema": {"type": "string"}, "example": "step,loss,margin\r\n1,0.6931,0.0\r\n"}},
    }
}


@router.get(
    "/{job_id}/metrics",
    response_model=Metrics,
    summary="Read a job's metrics",
    responses={**CSV_RESPONSE, **missing("job", "job")},
)
def get_metrics(
    job: JobDep,
    parts: PartsDep,
    keys: Annotated[
        str | None,
        Query(
            max_length=4000, description="Names, separated by commas; every metric when left out.", examples=["loss"]
        ),
    ] = None,
    from_step: Annotated[int | None, Query(ge=0, le=LARGEST_STEP, description="First step, included.")] = None,
    to_step: Annotated[int | None, Query(ge=0, le=LARGEST_STEP, description="Last step, included.")] = None,
    max_points: Annotated[
        int,
        Query(ge=1, le=100_000, description="Thin out to so many steps, as `keep` says; the first and the last stay."),
    ] = 1000,
    keep: Annotated[
        Thinning,
        Query(
            description="What stays. `even`: all figures of evenly spaced steps. `extremes`, for curves: of each figure the lowest and "
            "the highest in each of equally long stretches, at the steps where they were (of equals the earliest), so that no spike is "
            "lost. `max_points` then holds for each figure, and a step has only those that stay there."
        ),
    ] = "even",
    format: Annotated[Literal["json", "csv"], Query(description="`csv` for a spreadsheet.")] = "json",
) -> Metrics | Response:
    """Figures by optimiser step: means over every pair of the step, and the validation split's as `validation/NAME`.

    Rewards of the probes on held-out prompts are `held_out/NAME`.
    """
    chosen = None if keys is None else {key.strip() for key in keys.split(",") if key.strip()}
    if chosen is not None:
        _refuse_unknown_keys(parts, job, chosen)
    if format == "csv" and keep == "extremes":
        message = "a table has whole rows, which only `even` keeps"
        raise invalid_request([FieldProblem(pointer="query:keep", code="value_error", message=message)])
    if format == "csv":
        names = sorted(job.metric_names if chosen is None else chosen)
        found = walk(parts.store, job.project_id, job.id, from_step=from_step, to_step=to_step, max_points=max_points)
        headers = {"Content-Disposition": f'attachment; filename="{job.id}-metrics.csv"'}
        return StreamingResponse(_csv(names, found), headers=headers, media_type="text/csv")
    rows = metrics(
        parts.store,
        job.project_id,
        job.id,
        keys=chosen,
        from_step=from_step,
        to_step=to_step,
        max_points=max_points,
        keep=keep,
    )
    names = sorted({name for row in rows for name in row.metrics})
    return Metrics(job_id=job.id, keys=names, data=[MetricPoint(step=row.step, metrics=row.metrics) for row in rows])


def _refuse_unknown_keys(parts: Parts, job: JobSummary, keys: set[str]) -> None:
    """Raise 422 for names that no step has. Before there are steps, no name is known to be wrong.

    The validation split's names are known from the first step on, though its figures come later.
    """
    trained = [name for name in job.metric_names if not name.startswith((VALIDATION, HELD_OUT))]
    unknown = keys - {*job.metric_names, *(VALIDATION + name for name in trained)}
    if trained and unknown and (unknown := sorted(unknown - _probed_names(parts, job))):
        message = "; ".join(_unknown_metric(name, job.metric_names) for name in unknown[:MOST_UNKNOWN])
        raise invalid_request([FieldProblem(pointer="query:keys", code="unknown_metric", message=message)])


def _unknown_metric(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"there is no metric {name[:80]!r}; " + (
        f"did you mean {near[0]!r}?" if near else f"this job has {', '.join(sorted(known))}"
    )


def _probed_names(parts: Parts, job: JobSummary) -> set[str]:
    """What the first probe will measure."""
    spec = whole_or_404("job", parts.store, job.project_id, job.id).spec
    evaluation = JobSpec.model_validate(spec).evaluation
    if evaluation.every is None:
        return set()
    lines = [*map(reward_name, evaluation.rewards), *(["prompt_following"] if evaluation.prompt_following else [])]
    figures = [*lines, *(f"{name}_gain" for name in lines), "diversity", "diversity_ratio"]
    return {HELD_OUT + name for name in figures}


def _csv(names: Sequence[str], rows: Iterable[tuple[int, Figures]]) -> Iterator[str]:
    """A table after RFC 4180, some lines at a time; a figure that a step lacks, or that is no number, is an empty cell."""
    lines = ([step, *map(figures.get, names)] for step, figures in rows if not figures.keys().isdisjoint(names))
    for some in _batched(chain([["step", *names]], lines), CSV_LINES_AT_ONCE):
        text = io.StringIO(newline="")
        csv.writer(text).writerows(some)
        yield text.getvalue()


def _batched(lines: Iterable[list[Any]], count: int) -> Iterator[list[list[Any]]]:
    """`itertools.batched`, which Python 3.11 lacks."""
    rest = iter(lines)
    while some := list(islice(rest, count)):
        yield some


@router.get(
    "/{job_id}/tensorboard",
    response_class=Response,
    summary="Download a job's TensorBoard log",
    responses={
        **file_responses("application/zip", "job", "job", redirects=False),
        **problem(
            404,
            "tensorboard_not_found",
            "job 'job_01kaf0h2v7x3m5q8r1s4t6w9yz' has no TensorBoard files",
            when="No such job in this project, or TensorBoard is not switched on here, or the first checkpoint is yet to come",
        ),
    },
)
@router.head("/{job_id}/tensorboard", include_in_schema=False)
def get_tensorboard(request: Request, job: JobDep, parts: PartsDep) -> Response:
    """Event files of all attempts, as a zip to unpack into a folder for `tensorboard --logdir`. It grows with every checkpoint."""
    files = outputs.list_tracking_files(parts.store, job.project_id, job.id)
    if not files:
        raise ApiError(404, "tensorboard_not_found", f"job {job.id!r} has no TensorBoard files")
    return send_archive(request, parts, files, f"{job.id}-tensorboard.zip")


@router.get("/{job_id}/samples", summary="List a job's sample images", responses=missing("job", "job"))
def list_samples(job: JobDep, parts: PartsDep, paging: PagingDep, newest_first: NewestFirst = False) -> Page[Sample]:
    """Pictures of base and policy, same prompts and same seeds, the earliest step first."""
    found = page_of_samples(
        parts.store, job.project_id, job.id, after_id=paging.after, limit=paging.limit, newest_first=newest_first
    )
    if found is None:
        raise paging.no_entry()
    return paging.page([Sample.of(sample, parts.base_url) for sample in found.data], has_more=found.has_more)


@router.get(
    "/{job_id}/samples/{sample_id}.png",
    response_class=Response,
    summary="Download a sample image",
    responses=file_responses("image/png", "sample", "smp"),
)
@router.head("/{job_id}/samples/{sample_id}.png", include_in_schema=False)
def get_sample_image(
    request: Request,
    job: JobDep,
    parts: PartsDep,
    sample_id: Annotated[str, Path(description="Id of a sample.", examples=["smp_01kaf0nd3f5h7k9m1p3r5t7v9x"])],
) -> Response:
    """The picture as PNG, or a redirect to it."""
    sample = get_sample(parts.store, job.project_id, job.id, sample_id) if is_id(sample_id) else None
    if sample is None:
        raise not_found("sample", sample_id)
    return send_picture(request, parts, sample, f"{job.id}-step-{sample.step}.png")


@router.get(
    "/{job_id}/report",
    summary="Read the proof",
    response_description="Base against policy on held-out prompts",
    responses=problem(
        404,
        "report_not_found",
        "job 'job_01kaf0h2v7x3m5q8r1s4t6w9yz' has no report: it is running",
        when="No such job in this project, or it has not been evaluated",
    ),
)
def get_report(job: JobDep, parts: PartsDep) -> EvaluationReport:
    """Does the aligned model beat the one it started from? Scores of both on the same prompts and seeds, with intervals."""
    found = outputs.get_report(parts.store, job.project_id, job.id)
    if found is None:
        raise ApiError(404, "report_not_found", f"job {job.id!r} has no report: it is {job.state}")
    report = EvaluationReport.model_validate(found.report)
    return report.model_copy(update={"human": human_comparisons(parts, job.project_id, job.id)})


@router.get(
    "/{job_id}/report.html",
    response_class=Response,
    summary="Read the proof as a page",
    responses={
        **file_responses("text/html", "job", "job", redirects=False),
        **problem(
            404,
            "report_not_found",
            "job 'job_01kaf0h2v7x3m5q8r1s4t6w9yz' has no report page: it is running",
            when="No such job in this project, or it has not been evaluated",
        ),
    },
)
@router.head("/{job_id}/report.html", include_in_schema=False)
def get_report_page(request: Request, job: JobDep, parts: PartsDep) -> Response:
    """The report for people: one HTML page with pictures and plots, which loads nothing and runs nothing."""
    found = outputs.get_report(parts.store, job.project_id, job.id)
    if found is None or found.page is None:
        raise ApiError(404, "report_not_found", f"job {job.id!r} has no report page: it is {job.state}")
    told = human_comparisons(parts, job.project_id, job.id)
    return send_page(request, with_people(parts, found.page, told))


@router.get("/{job_id}/manifest", summary="Read a job's manifest", responses=missing("job", "job"))
def get_manifest(job: WholeJobDep, parts: PartsDep) -> Manifest:
    """Everything that decided the result and everything it left, by hash: the spec, the data, the versions, the files."""
    started = event_lookup.latest_of_type(parts.store, job.project_id, job.id, "run_started")
    report = outputs.get_report(parts.store, job.project_id, job.id)
    return Manifest(
        job_id=job.id,
        status=job.state,
        attempt=job.attempt,
        spec=JobSpec.model_validate(job.spec),
        spec_sha256=job.spec_sha256,
        datasets=_manifest_datasets(parts, job),
        versions={} if started is None else started.data["versions"],
        checkpoints=_manifest_checkpoints(parts, job),
        report_sha256=None if report is None else sha256_of_json(report.report),
    )


def _manifest_datasets(parts: Parts, job: JobRecord) -> list[ManifestDataset]:
    ids = dict.fromkeys(dataset_id for _, dataset_id in stored_datasets(JobSpec.model_validate(job.spec)))
    found = [datasets.get(parts.store, job.project_id, dataset_id) for dataset_id in ids]
    return [
        ManifestDataset(id=one.id, sha256=one.sha256, num_usable_rows=(one.report or {}).get("num_usable_rows"))
        for one in found
        if one is not None
    ]


def _manifest_checkpoints(parts: Parts, job: JobRecord) -> list[ManifestCheckpoint]:
    return [
        ManifestCheckpoint(
            id=one.id,
            step=one.step,
            kind=one.kind,
            is_final=one.is_final,
            is_best=one.is_best,
            files=[FileRecord(path=file.path, size_bytes=file.size_bytes, sha256=file.sha256) for file in one.files],
        )
        for one in outputs.list_checkpoints(parts.store, job.project_id, job.id)
    ]


@router.get("/{job_id}/logs", summary="Read what a job's processes printed", responses=missing("job", "job"))
def get_logs(job: JobDep, parts: PartsDep) -> Logs:
    """The end of the output of each attempt's training process, for when a run fails in a way that nobody foresaw."""
    return logs_of(parts, job)
