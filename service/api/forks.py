"""Forks: a new job from a checkpoint, and a job's ancestors and children."""

from typing import Annotated, assert_never

from fastapi import Body, Response

from alignment_core.spec import CheckpointSource, JobSpec
from alignment_core.spec.start import StartSpec
from service.api.context import PartsDep
from service.api.idempotency import IN_FLIGHT, OnceDep
from service.api.jobs import new_job, spec_of_job
from service.api.lookup import CheckpointDep, JobDep, whole_or_404
from service.api.problems import missing, problems
from service.api.quotas import submit_headers
from service.api.routers import api_router
from service.api.rows import LOCATION
from service.api.schemas.forks import RESUME_EXAMPLE, WARM_EXAMPLE, Ancestry, Child, Fork, ResumeFork, WarmStartFork
from service.api.schemas.jobs import Job, JobRequest, Parent, ResumeFrom
from service.errors import FieldProblem, invalid_request
from service.store import ancestry
from service.store.records.checkpoints import CheckpointRecord
from service.store.records.jobs import JobRecord

router = api_router(prefix="/v1", tags=["jobs"], responses=problems(401, 403, 422, 500, 503))

FORK_EXAMPLES = {
    "resume": {"summary": "The same run, twice as long", "value": RESUME_EXAMPLE},
    "warm_start": {"summary": "A new run on these weights", "value": WARM_EXAMPLE},
}


@router.post(
    "/checkpoints/{checkpoint_id}/fork",
    status_code=201,
    response_model=Job,
    summary="Fork a job from a checkpoint",
    response_description="The new job, queued, with its `parent`",
    responses={201: LOCATION, **missing("checkpoint", "ckpt"), **IN_FLIGHT, **problems(400, 413, 429)},
)
def fork_checkpoint(
    body: Annotated[Fork, Body(openapi_examples=FORK_EXAMPLES)],  # pyright: ignore[reportArgumentType]
    checkpoint: CheckpointDep,
    parts: PartsDep,
    once: OnceDep,
) -> Response:
    """Queue a job that goes on from a checkpoint (`resume`), or a new one on its weights (`warm_start`).

    With a constant learning rate, `resume` ends with the bits of one run of so many steps; another schedule is that of the longer run from
    here on. The checkpoint and its job cannot be deleted before the fork has ended.
    """
    parent = whole_or_404("job", parts.store, checkpoint.project_id, checkpoint.job_id)
    request = _request_of(body, checkpoint, parent)
    told = {"checkpoint": checkpoint.id, "fork": body.model_dump(mode="json")}
    answer = once(
        "job",
        "/v1/jobs",
        told,
        lambda job_id: new_job(parts, checkpoint.project_id, request, job_id),
        {"spec": spec_of_job(parts, checkpoint.project_id)},
    )
    answer.headers.update(submit_headers(parts, checkpoint.project_id))
    return answer


def _request_of(fork: Fork, checkpoint: CheckpointRecord, parent: JobRecord) -> JobRequest:
    match fork:
        case ResumeFork():
            spec, begin = _longer(fork, checkpoint, parent), ResumeFrom(checkpoint_id=checkpoint.id)
        case WarmStartFork():
            spec, begin = _on_weights(fork, checkpoint, parent), None
        case _:
            assert_never(fork)
    return JobRequest(spec=spec, name=fork.name, metadata=fork.metadata, resume_from=begin, retention=None, pins=None)


def _longer(fork: ResumeFork, checkpoint: CheckpointRecord, parent: JobRecord) -> JobSpec:
    if fork.steps <= checkpoint.step:
        message = f"the checkpoint is of step {checkpoint.step}: nothing would be left to train"
        raise _unfit("/steps", "nothing_left_to_train", message)
    spec = JobSpec.model_validate(parent.spec)
    return spec.model_copy(update={"training": spec.training.model_copy(update={"steps": fork.steps})})


def _on_weights(fork: WarmStartFork, checkpoint: CheckpointRecord, parent: JobRecord) -> JobSpec:
    if fork.spec is not None and fork.spec.start is not None:
        raise _unfit("/spec/start", "start_unfit", "a fork says itself what it starts from: leave start out")
    spec = fork.spec or JobSpec.model_validate(parent.spec)
    source = CheckpointSource(id=checkpoint.id)
    if checkpoint.kind == "lora":
        initial = "base" if fork.reference == "base" else "lora"
        return spec.model_copy(update={"start": StartSpec(lora=source, mode="train", initial=initial)})
    if fork.reference == "base":
        message = "a full fine-tune has no bare base in it: the reference of a run on its weights is the checkpoint"
        raise _unfit("/reference", "reference_unavailable", message)
    return spec.model_copy(update={"model": source, "start": None})


def _unfit(pointer: str, code: str, message: str) -> Exception:
    return invalid_request([FieldProblem(pointer=pointer, code=code, message=message)])


@router.get("/jobs/{job_id}/ancestry", summary="See where a job comes from", responses=missing("job", "job"))
def get_ancestry(job: JobDep, parts: PartsDep) -> Ancestry:
    """The checkpoints that led to the job, and the jobs that were forked from its own."""
    return Ancestry(
        job_id=job.id,
        ancestors=[Parent.of(one) for one in ancestry.ancestors(parts.store, job.project_id, job.id)],
        children=[Child.of(one) for one in ancestry.children(parts.store, job.project_id, job.id)],
    )
