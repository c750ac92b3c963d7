"""How long everything waits, and how often it is looked for."""

from typing import Self

from pydantic import Field, model_validator

from service.settings.base import Group


class Patience(Group):
    """How long everything waits, and how often it is looked for."""

    lease_seconds: float = Field(
        default=60.0, gt=0, description="A job whose worker is silent this long is given to another."
    )
    heartbeat_seconds: float = Field(default=15.0, gt=0, description="How often a worker renews its lease.")
    sweep_every_seconds: float = Field(
        default=15.0, gt=0, description="How often lost jobs and lost messages are looked for."
    )
    storage_patience_seconds: float = Field(
        default=300.0,
        ge=0,
        description="How long a job waits for an object store or a disk that is full, read-only or silent; then it is paused.",
    )
    max_attempts: int = Field(default=3, ge=1, description="A job fails after this many lost workers.")
    poll_seconds: float = Field(
        default=1.0, gt=0, description="How often a worker looks for a cancel or pause request."
    )
    cancel_grace_seconds: float = Field(
        default=30.0, ge=0, description="Time a training process has to save and leave before it is killed."
    )
    max_check_seconds: float = Field(
        default=3600.0, gt=0, description="A dataset whose check takes longer is refused; it is killed."
    )
    max_export_seconds: float = Field(
        default=3600.0, gt=0, description="An export of a checkpoint that takes longer is given up; it is killed."
    )
    max_checks_per_project: int = Field(
        default=3,
        ge=1,
        description="Datasets of one project that are checked at once; keep it under the checkers' `--concurrency`, so that "
        "no project can keep all of them busy.",
    )
    retention_every_seconds: float = Field(
        default=600.0, gt=0, description="How often workers let go what retention policies let go."
    )
    orphans_every_hours: float | None = Field(
        default=None,
        gt=0,
        description="How often workers remove objects that belong to nobody; never when left out, since every object is listed.",
    )
    orphan_grace_hours: float = Field(
        default=24.0, ge=1, description="How old an object must be to be taken for one that belongs to nobody."
    )
    audit_days: float = Field(
        default=365.0, gt=0, description="How long rows of the audit log are kept; workers' sweeps take out older ones."
    )
    upload_timeout_seconds: float = Field(
        default=86_400.0, gt=0, description="A dataset whose upload has not ended after this long is marked as failed."
    )
    upload_idle_seconds: float = Field(
        default=60.0,
        gt=0,
        description="The sender of a file who takes longer than this for 64 KiB of it is answered 408; what has arrived of an upload in "
        "pieces stays.",
    )
    unfinished_upload_hours: float = Field(
        default=24.0, gt=0, description="How long the pieces of an unfinished upload are kept after the last that came."
    )

    @model_validator(mode="after")
    def _a_late_heartbeat_loses_no_job(self) -> Self:
        if self.heartbeat_seconds * 2 > self.lease_seconds:
            raise ValueError(
                f"ATTUNE_HEARTBEAT_SECONDS ({self.heartbeat_seconds:g}) must be at most half of "
                f"ATTUNE_LEASE_SECONDS ({self.lease_seconds:g}), or one late heartbeat loses a healthy job"
            )
        return self
