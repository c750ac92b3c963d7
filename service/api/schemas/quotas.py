"""Quotas as the API shows them."""

from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from service.api.schemas.base import Entry, with_example
from service.store.limits import QuotaName, Standing

QUOTA_EXAMPLE: dict[str, Any] = {
    "id": "submits",
    "object": "quota",
    "limit": 60.0,
    "used": 12.0,
    "resets_at": "2026-11-20T10:00:00Z",
}


class Quota(Entry):
    """What a project may take of one thing, and how much of it is taken."""

    model_config = with_example(QUOTA_EXAMPLE)

    id: QuotaName = Field(  # pyright: ignore[reportIncompatibleVariableOverride]
        description="`jobs` that have not ended, jobs that were submitted (`submits`) in this hour, `gpu_hours` of this month, "
        "`bytes` stored."
    )
    object: Literal["quota"] = "quota"
    limit: float | None = Field(description="Null where there is none.")
    used: float
    resets_at: datetime | None = Field(
        description="When the count begins anew; null where only an end or a deletion frees it."
    )

    @classmethod
    def of(cls, standing: Standing) -> "Quota":
        return cls(id=standing.name, limit=standing.limit, used=standing.used, resets_at=standing.resets_at)
