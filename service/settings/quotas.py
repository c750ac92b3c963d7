"""What a project may take, unless the owner gives it limits of its own."""

from pydantic import Field

from service.settings.base import Group
from service.store.limits import Limits


class Quotas(Group):
    """What a project may take, unless the owner gives it limits of its own."""

    quota_jobs: int | None = Field(
        default=None, ge=0, description="Most jobs of a project that have not ended; no limit when left out."
    )
    quota_submits_per_hour: int | None = Field(
        default=None, ge=0, description="Most jobs that a project may submit in an hour; no limit when left out."
    )
    quota_gpu_hours_per_month: float | None = Field(
        default=None,
        ge=0,
        description="Hours of a project's training processes in a calendar month after which no job is taken; no limit when left out.",
    )
    quota_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Most bytes of a project's data sets, checkpoints, exports and pictures; no limit when left out.",
    )
    aliases_per_project: int = Field(default=200, ge=1, description="Most names that point at a project's checkpoints.")
    open_sweeps_per_project: int = Field(
        default=20, ge=1, description="Most sweeps of a project that have jobs to queue at the same time."
    )

    @property
    def limits(self) -> Limits:
        return Limits(
            jobs=self.quota_jobs,
            submits=self.quota_submits_per_hour,
            gpu_hours=self.quota_gpu_hours_per_month,
            bytes=self.quota_bytes,
        )
