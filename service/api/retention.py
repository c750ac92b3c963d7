"""Retention: policies of the project and of jobs, what they lead to, and pins."""

from service.api.context import Parts, PartsDep
from service.api.lookup import CheckpointDep, JobDep
from service.api.problems import missing, problems
from service.api.routers import api_router
from service.api.schemas.checkpoints import Checkpoint
from service.api.schemas.retention import CheckpointOutlook, JobRetention
from service.api.schemas.retention_policy import JobPins, RetentionPolicy
from service.auth import ProjectDep
from service.errors import not_found
from service.scopes import needs
from service.store import outputs, retention
from service.store.records.checkpoints import CheckpointRecord
from service.store.records.jobs import JobSummary
from service.store.retention_rules import Policy

router = api_router(prefix="/v1", tags=["retention"], responses=problems(401, 422, 500, 503))
CHANGING = problems(400, 403, 413)


@router.get("/retention", summary="Look at the project's retention policy")
def get_retention(project_id: ProjectDep, parts: PartsDep) -> RetentionPolicy:
    """The policy of every job that has none of its own. Until one is put, all checkpoints stay."""
    return RetentionPolicy.of(retention.policy_of_project(parts.store, project_id))


@router.put(
    "/retention",
    summary="Put the project's retention policy",
    responses=CHANGING,
    dependencies=[needs("admin")],  # it deletes what others have made
)
def put_retention(body: RetentionPolicy, project_id: ProjectDep, parts: PartsDep) -> RetentionPolicy:
    """What goes by it goes with the next sweep, within minutes, of old jobs too. `GET /v1/jobs/{job_id}/retention` shows it before."""
    retention.set_project_policy(parts.store, project_id, body.rule())
    return body


@router.get("/jobs/{job_id}/retention", summary="See which checkpoints of a job stay", responses=missing("job", "job"))
def get_job_retention(job: JobDep, parts: PartsDep) -> JobRetention:
    """The policy that the job is under, and for each checkpoint whether it goes with the next sweep, with the reason.

    A checkpoint never goes while it is pinned, is a champion, or a job was forked from it, and none of a job that has not ended or may be resumed, but
    for `unfinished_days`.
    """
    return _outlook(job, parts)


@router.put(
    "/jobs/{job_id}/retention",
    summary="Put a job's own retention policy",
    responses={**missing("job", "job"), **CHANGING},
)
def put_job_retention(job: JobDep, body: RetentionPolicy, parts: PartsDep) -> JobRetention:
    """In place of the project's. An empty policy keeps all checkpoints of this job."""
    return _changed(job, parts, body.rule())


@router.delete(
    "/jobs/{job_id}/retention",
    summary="Give up a job's own retention policy",
    responses={**missing("job", "job"), **problems(403)},
)
def delete_job_retention(job: JobDep, parts: PartsDep) -> JobRetention:
    """The project's counts again."""
    return _changed(job, parts, None)


@router.post(
    "/checkpoints/{checkpoint_id}/pin",
    summary="Pin a checkpoint",
    responses={**missing("checkpoint", "ckpt"), **problems(403)},
)
def pin_checkpoint(checkpoint: CheckpointDep, parts: PartsDep) -> Checkpoint:
    """Keep it from every policy and from `DELETE`, until it is unpinned. Asking twice is no error."""
    return _pinned(checkpoint, parts, is_pinned=True)


@router.post(
    "/checkpoints/{checkpoint_id}/unpin",
    summary="Unpin a checkpoint",
    responses={**missing("checkpoint", "ckpt"), **problems(403)},
)
def unpin_checkpoint(checkpoint: CheckpointDep, parts: PartsDep) -> Checkpoint:
    """Policies and `DELETE` count for it again. Asking twice is no error."""
    return _pinned(checkpoint, parts, is_pinned=False)


def _pinned(checkpoint: CheckpointRecord, parts: Parts, *, is_pinned: bool) -> Checkpoint:
    retention.pin(parts.store, checkpoint.project_id, checkpoint.id, is_pinned=is_pinned)
    found = outputs.get_checkpoint(parts.store, checkpoint.project_id, checkpoint.id)
    if found is None:  # deleted since it was looked up
        raise not_found("checkpoint", checkpoint.id)
    return Checkpoint.of(found)


def _changed(job: JobSummary, parts: Parts, policy: Policy | None) -> JobRetention:
    retention.set_job_policy(parts.store, job.project_id, job.id, policy)
    return _outlook(job, parts)


def _outlook(job: JobSummary, parts: Parts) -> JobRetention:
    found = retention.outlook(parts.store, job.project_id, job.id)
    if found is None:  # deleted since it was looked up
        raise not_found("job", job.id)
    policy, is_own, verdicts = found
    checkpoints = [CheckpointOutlook.of(one) for one in verdicts]
    pins = JobPins.of(retention.pins_of(parts.store, job.id))
    return JobRetention(
        job_id=job.id, policy=RetentionPolicy.of(policy), is_own=is_own, pins=pins, checkpoints=checkpoints
    )
