"""What a project may take: the numbers, where they come from, and what is said when one is used up."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, Literal

QuotaName = Literal["jobs", "submits", "gpu_hours", "bytes"]
NO_LIMIT = -1  # how a project's row says it; null in it means the server's own


@dataclass(frozen=True)
class Limits:
    """None is no limit. `jobs` counts those that have not ended, `submits` an hour, `gpu_hours` a month."""

    jobs: int | None = None
    submits: int | None = None
    gpu_hours: float | None = None
    bytes: int | None = None

    def replaced_by(self, own: Mapping[str, Any]) -> "Limits":
        """These, but where a project has its own."""
        values = {field.name: own[field.name] for field in fields(self)}
        return Limits(
            **{
                name: getattr(self, name) if value is None else None if value == NO_LIMIT else value
                for name, value in values.items()
            }
        )


@dataclass(frozen=True)
class Standing:
    """How much of one quota is used; `resets_at` is None where only an end or a deletion gives it back."""

    name: QuotaName
    limit: float | None
    used: float
    resets_at: datetime | None

    @property
    def is_used_up(self) -> bool:
        return self.limit is not None and self.used >= self.limit


WORDS: dict[QuotaName, str] = {
    "jobs": "jobs that have not ended",
    "submits": "jobs submitted in this hour",
    "gpu_hours": "GPU-hours of this month",
    "bytes": "bytes stored",
}


class QuotaExceeded(Exception):  # noqa: N818 - a state of affairs, read as one
    """A project has taken all that its owner gives it."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        until = "" if standing.resets_at is None else f", until {standing.resets_at:%Y-%m-%dT%H:%M:%SZ}"
        super().__init__(
            f"this project has {standing.used:.12g} of {standing.limit:.12g} {WORDS[standing.name]}{until}"
        )
