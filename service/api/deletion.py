"""DELETE for datasets, prompt sets, jobs and checkpoints: rows first, then, behind the answer, their objects."""

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import BackgroundTasks, Depends, Path, Query

from service.api.context import Parts, PartsDep
from service.api.exports import FormatPath
from service.api.lookup import CandidatesDep, CheckpointDep, DatasetDep, EvaluationDep, JobDep, PromptSetDep, WeightsDep
from service.api.problems import missing, problem, problems
from service.api.pushes import PushPath
from service.api.routers import api_router
from service.api.schemas.deleted import Deleted
from service.api.sweeps import SweepPath
from service.auth import ProjectDep
from service.errors import ApiError, not_found
from service.nouns import spoken
from service.store import deletion, pushes
from service.store.ids import is_id
from service.store.removals import remove_due

router = api_router(prefix="/v1", responses=problems(401, 403, 422, 500, 503))

Kind = Literal[
    "dataset",
    "weights",
    "prompt_set",
    "upload",
    "job",
    "evaluation",
    "candidates",
    "labeling",
    "sweep",
    "checkpoint",
    "export",
    "push",
    "sample",
    "report",
]


class Deleter:
    """Answers for one deletion, and has the objects removed once the answer is out."""

    def __init__(self, parts: Parts, background: BackgroundTasks) -> None:
        self._parts, self._background = parts, background

    def __call__(self, kind: Kind, identifier: str, delete: Callable[[], str | None]) -> Deleted:
        try:
            deleted = delete()
        except deletion.InUse as error:
            raise ApiError(409, error.code, f"{spoken(kind)} {identifier!r} cannot be deleted: {error}") from error
        if deleted is None:  # somebody else was faster
            raise not_found(kind, identifier)
        self._background.add_task(remove_due, self._parts.store, self._parts.objects)
        return Deleted(id=deleted, object=kind)


def _deleter(parts: PartsDep, background: BackgroundTasks) -> Deleter:
    return Deleter(parts, background)


DeleterDep = Annotated[Deleter, Depends(_deleter)]


def _responses(kind: Kind, prefix: str, code: str, why: str, when: str) -> dict[int | str, dict[str, Any]]:
    detail = f"{spoken(kind)} '{prefix}_01kaf0h2v7x3m5q8r1s4t6w9yz' cannot be deleted: {why}"
    return {**missing(kind, prefix), **problem(409, code, detail, when=when)}


@router.delete(
    "/datasets/{dataset_id}",
    tags=["datasets"],
    summary="Delete a data set",
    responses=_responses(
        "dataset",
        "ds",
        "dataset_in_use",
        "its upload has not ended",
        "It arrives, or a job that has not ended, or that a sweep is yet to queue, needs it",
    ),
)
def delete_dataset(dataset: DatasetDep, parts: PartsDep, deleter: DeleterDep) -> Deleted:
    """Remove a data set for good: its file, its report, and the answers remembered under its `Idempotency-Key`.

    A check that is at work is given up. Jobs that were trained on it stay, with what they left.
    """
    return deleter("dataset", dataset.id, lambda: deletion.delete_dataset(parts.store, dataset.project_id, dataset.id))


@router.delete(
    "/weights/{weights_id}",
    tags=["weights"],
    summary="Delete weights",
    responses=_responses(
        "weights",
        "wts",
        "weights_in_use",
        "their upload has not ended",
        "They arrive, or a job that has not ended, or that a sweep is yet to queue, needs them",
    ),
)
def delete_weights(weights: WeightsDep, parts: PartsDep, deleter: DeleterDep) -> Deleted:
    """Remove uploaded weights for good: their file, and the answers remembered under their `Idempotency-Key`.

    Jobs that started from them stay, with what they left.
    """
    return deleter("weights", weights.id, lambda: deletion.delete_dataset(parts.store, weights.project_id, weights.id))


@router.delete(
    "/prompt_sets/{prompt_set_id}",
    tags=["prompt sets"],
    summary="Delete a prompt set",
    responses=_responses(
        "prompt_set",
        "ps",
        "prompt_set_in_use",
        "job_01kaf0h2v7x3m5q8r1s4t6w9yz need it; cancel them or let them end",
        "A job that has not ended, or that a sweep is yet to queue, needs it",
    ),
)
def delete_prompt_set(found: PromptSetDep, parts: PartsDep, deleter: DeleterDep) -> Deleted:
    """Remove a prompt set for good. Jobs that named it stay, and so do its hash and its number in their specs."""
    return deleter("prompt_set", found.id, lambda: deletion.delete_prompt_set(parts.store, found.project_id, found.id))


@router.delete(
    "/jobs/{job_id}",
    tags=["jobs"],
    summary="Delete a job",
    responses=_responses(
        "job", "job", "job_in_use", "the job is running; cancel it first", "The job has not ended: cancel it first"
    ),
)
def delete_job(job: JobDep, parts: PartsDep, deleter: DeleterDep) -> Deleted:
    """Remove a job that has ended, with all that it left: events, metrics, checkpoints, samples, reports, logs."""
    return deleter("job", job.id, lambda: deletion.delete_job(parts.store, job.project_id, job.id))


@router.delete(
    "/evaluations/{evaluation_id}",
    tags=["evaluations"],
    summary="Delete an evaluation",
    responses=_responses(
        "evaluation",
        "eval",
        "evaluation_in_use",
        "it is running; cancel it first",
        "It, or a verification of it, has not ended: cancel it first; or a name points at the checkpoint that it earned",
    ),
)
def delete_evaluation(evaluation: EvaluationDep, parts: PartsDep, deleter: DeleterDep) -> Deleted:
    """Remove an evaluation that has ended, with its report, scores, pictures and verifications."""
    return deleter(
        "evaluation",
        evaluation.id,
        lambda: deletion.delete_evaluation(parts.store, evaluation.project_id, evaluation.id),
    )


@router.delete(
    "/candidates/{candidates_id}",
    tags=["labeling"],
    summary="Delete candidates",
    responses=_responses(
        "candidates",
        "cand",
        "candidates_in_use",
        "they are running; cancel them first",
        "They have not ended: cancel them first; or a labeling shows their images",
    ),
)
def delete_candidates(candidates: CandidatesDep, parts: PartsDep, deleter: DeleterDep) -> Deleted:
    """Remove candidates that have ended, with all their images. Data sets that were made of them stay."""
    return deleter(
        "candidates",
        candidates.id,
        lambda: deletion.delete_candidates(parts.store, candidates.project_id, candidates.id),
    )


@router.delete(
    "/sweeps/{sweep_id}",
    tags=["sweeps"],
    summary="Delete a sweep",
    responses=_responses(
        "sweep",
        "swp",
        "sweep_in_use",
        "it has jobs to queue; cancel it first",
        "It has jobs to queue, or some that have not ended: cancel it first",
    ),
)
def delete_sweep(sweep_id: SweepPath, project_id: ProjectDep, parts: PartsDep, deleter: DeleterDep) -> Deleted:
    """Remove a sweep that is over, with its table. Its jobs stay, with all that they left."""
    return deleter(
        "sweep",
        sweep_id,
        lambda: deletion.delete_sweep(parts.store, project_id, sweep_id) if is_id(sweep_id) else None,
    )


@router.delete(
    "/checkpoints/{checkpoint_id}",
    tags=["checkpoints"],
    summary="Delete a checkpoint",
    responses=_responses(
        "checkpoint",
        "ckpt",
        "checkpoint_is_result",
        "it is the result of its job; delete the job, or say `even_result=true`",
        "Its job has not ended and may go on from it, or it is the job's result",
    ),
)
def delete_checkpoint(
    checkpoint: CheckpointDep,
    parts: PartsDep,
    deleter: DeleterDep,
    even_result: Annotated[bool, Query(description="Delete it although it is the result of its job.")] = False,
) -> Deleted:
    """Remove a checkpoint of a job that has ended. The job and its other checkpoints stay."""
    return deleter(
        "checkpoint",
        checkpoint.id,
        lambda: deletion.delete_checkpoint(parts.store, checkpoint.project_id, checkpoint.id, even_result=even_result),
    )


@router.delete(
    "/checkpoints/{checkpoint_id}/exports/{format}",
    tags=["checkpoints"],
    summary="Delete an export",
    responses=_responses(
        "export", "exp", "export_in_use", "a worker is making it; wait for its end", "A worker is making it"
    ),
)
def delete_export(checkpoint: CheckpointDep, format: FormatPath, parts: PartsDep, deleter: DeleterDep) -> Deleted:
    """Remove a checkpoint's files in another form. The checkpoint stays, and the form is made again when it is asked for."""
    return deleter("export", format, lambda: deletion.delete_export(parts.store, checkpoint.id, format))


@router.delete(
    "/checkpoints/{checkpoint_id}/pushes/{push_id}",
    tags=["checkpoints"],
    summary="Delete a push",
    responses=_responses(
        "push", "psh", "push_in_use", "a worker is making it; wait for its end", "A worker is making it"
    ),
)
def delete_push(checkpoint: CheckpointDep, push_id: PushPath, parts: PartsDep, deleter: DeleterDep) -> Deleted:
    """Forget a push, one that waits too. What the Hub has stays there; asking for it again pushes again."""
    return deleter(
        "push", push_id, lambda: pushes.delete(parts.store, checkpoint.id, push_id) if is_id(push_id) else None
    )


@router.delete(
    "/jobs/{job_id}/samples/{sample_id}",
    tags=["runs"],
    summary="Delete a sample image",
    responses=missing("sample", "smp"),
)
def delete_sample(
    job: JobDep,
    parts: PartsDep,
    deleter: DeleterDep,
    sample_id: Annotated[str, Path(description="Id of a sample.", examples=["smp_01kaf0nd3f5h7k9m1p3r5t7v9x"])],
) -> Deleted:
    """Remove a picture. A job that runs may draw one of the same step again."""
    return deleter(
        "sample",
        sample_id,
        lambda: deletion.delete_sample(parts.store, job.project_id, job.id, sample_id) if is_id(sample_id) else None,
    )


@router.delete(
    "/jobs/{job_id}/report",
    tags=["runs"],
    summary="Delete a job's report",
    responses=_responses(
        "report", "job", "report_in_use", "the job is running; cancel it first", "The job has not ended"
    ),
)
def delete_report(job: JobDep, parts: PartsDep, deleter: DeleterDep) -> Deleted:
    """Remove the proof and its page with all pictures in it. The job and its checkpoints stay."""
    return deleter("report", job.id, lambda: deletion.delete_report(parts.store, job.project_id, job.id))
