"""What jobs took, as the API shows it."""

from datetime import datetime
from typing import Any, Literal, Self

from pydantic import Field

from service.api.schemas.base import Resource, with_example
from service.store import usage

SECONDS_EXAMPLE = {
    "queued": 2.1, "starting": 4.8, "loading": 3.0, "training": 46.2, "sampling": 34.9, "scoring": 11.1, "saving": 0.4, "evaluating": 2.2,
    "uploading": 0.6, "waiting_for_storage": 13.3,
}  # fmt: skip
OF_PHASES = (
    "Seconds by phase, of all attempts together, those too whose worker was lost: `queued`, `starting` (until the run has said that it "
    "began), the run's own phases, and `uploading` (what is left to store once it has ended). What happens beside the training, such as "
    "writing or storing a large checkpoint, is `training`. Told apart of them: `sampling` and `scoring` (drawing and judging of online "
    "methods, reports and probes), `waiting_for_data` (steps without a batch), and `waiting_for_storage` (a store or a disk that was away)."
)
JOB_USAGE_EXAMPLE: dict[str, Any] = {
    "num_attempts": 1,
    "seconds": SECONDS_EXAMPLE,
    "process_seconds": 116.5,
    "gpu_seconds": 116.5,
    "peak_device_gib": 0.16,
    "peak_host_gib": 1.9,
    "stored_bytes": 712_416,
    "estimated_seconds": 90.1,
    "over_estimate": 1.29,
}
USAGE_EXAMPLE: dict[str, Any] = {
    "object": "usage",
    "since": "2026-11-01T00:00:00Z",
    "until": "2026-12-01T00:00:00Z",
    "num_attempts": 12,
    "seconds": {name: 12 * seconds for name, seconds in SECONDS_EXAMPLE.items()},
    "process_seconds": 1398.0,
    "gpu_seconds": 1398.0,
    "stored_bytes": 8_548_992,
}


class JobUsage(Resource):
    """What a job took until now."""

    model_config = with_example(JOB_USAGE_EXAMPLE)

    num_attempts: int = Field(description="Attempts that are counted.")
    seconds: dict[str, float] = Field(description=OF_PHASES)
    process_seconds: float = Field(description="From a worker's claim to the attempt's end, times its processes.")
    gpu_seconds: float = Field(description="The same of attempts on GPUs: each process holds one.")
    peak_device_gib: float | None = Field(description="The most that tensors took on a device; null on a CPU.")
    peak_host_gib: float | None = Field(description="The most that a process took of its host's memory.")
    stored_bytes: int = Field(description="Of checkpoints, exports, pictures and the report's page, as they are now.")
    estimated_seconds: float | None = Field(
        description="What the estimate expected from the claim on; null without one."
    )
    over_estimate: float | None = Field(
        description="Seconds from the claim on, over those expected; null before the job has succeeded in a single attempt."
    )

    @classmethod
    def of(cls, found: usage.Usage, estimate: dict[str, Any] | None, *, is_comparable: bool) -> Self:
        expected = ((estimate or {}).get("duration") or {}).get("total", {}).get("expected")
        took = sum(seconds for phase, seconds in found.seconds.items() if phase != "queued")
        ratio = round(took / expected, 3) if expected and is_comparable and found.num_attempts == 1 else None
        return cls(**vars(found), estimated_seconds=expected, over_estimate=ratio)


class ProjectUsage(Resource):
    """What a project's attempts took that ended within a time."""

    model_config = with_example(USAGE_EXAMPLE)

    object: Literal["usage"] = "usage"
    since: datetime | None
    until: datetime | None
    num_attempts: int
    seconds: dict[str, float] = Field(description=OF_PHASES)
    process_seconds: float = Field(description="From a worker's claim to the attempt's end, times its processes.")
    gpu_seconds: float = Field(description="The same of attempts on GPUs: each process holds one.")
    stored_bytes: int = Field(description="Of the jobs that are there now: checkpoints, exports, pictures and pages.")

    @classmethod
    def of(cls, found: usage.Usage, since: datetime | None, until: datetime | None) -> Self:
        return cls(
            since=since,
            until=until,
            num_attempts=found.num_attempts,
            seconds=found.seconds,
            process_seconds=found.process_seconds,
            gpu_seconds=found.gpu_seconds,
            stored_bytes=found.stored_bytes,
        )
