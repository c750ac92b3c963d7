"""A job as the OpenAPI document shows it: asked for, and on its way."""

from typing import Any

from alignment_core.spec import JobSpec
from service.api.schemas.estimates import ESTIMATE_EXAMPLE
from service.api.schemas.usage import JOB_USAGE_EXAMPLE

JOB_ID = "job_01kaf0h2v7x3m5q8r1s4t6w9yz"
DATASET_ID = "ds_01kaf0f6a2c4e6g8j0m2p4r6t8"

SPEC_EXAMPLE: dict[str, Any] = {
    "model": {"type": "catalog", "name": "shapes"},
    "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": DATASET_ID}, "beta": 2000.0},
    "training": {"steps": 400, "batch_size": 32, "gradient_accumulation_steps": 2, "learning_rate": 0.0003},
    "evaluation": {"rewards": [{"type": "colorfulness"}], "max_prompts": 32},
    "seed": 7,
}
RESOLVED_SPEC_EXAMPLE = JobSpec.model_validate(SPEC_EXAMPLE).resolved().model_dump(mode="json")

CREATE_EXAMPLE: dict[str, Any] = {"spec": SPEC_EXAMPLE, "name": "more colour", "metadata": {"team": "design"}}

SUMMARY_EXAMPLE: dict[str, Any] = {
    "id": JOB_ID,
    "object": "job",
    "name": "more colour",
    "metadata": {"team": "design"},
    "status": "running",
    "is_terminal": False,
    "phase": "training",
    "attempt": 1,
    "resume_from": None,
    "parent": None,
    "check_only": False,
    "pause_keeps": None,
    "queue": None,
    "outcome": None,
    "progress": {"step": 120, "total": 400, "percent": 30.0, "eta_seconds": 56.0},
    "error": None,
    "method": "diffusion_dpo",
    "model": "shapes",
    "spec_sha256": JobSpec.model_validate(SPEC_EXAMPLE).sha256(),
    "latest_checkpoint_id": None,
    "result_checkpoint_id": None,
    "created_at": "2026-11-20T09:15:00Z",
    "queued_at": "2026-11-20T09:15:00Z",
    "updated_at": "2026-11-20T09:15:31Z",
    "started_at": "2026-11-20T09:15:02Z",
    "finished_at": None,
}


START_CHECKS_EXAMPLE: dict[str, Any] = {
    "checks": [
        {"check": "load", "seconds": 0.61, "detail": "the model, and 32 examples of the data"},
        {"check": "step", "seconds": 0.44, "detail": "one step of 32 examples"},
        {"check": "checkpoint", "seconds": 0.05, "detail": "0.5 MiB written and read, equal to the bit"},
        {"check": "picture", "seconds": 0.21, "detail": "64 x 64 pixels in 20 steps"},
        {"check": "reward", "seconds": 0.01, "detail": "colorfulness 0.6771"},
    ],
    "seconds": 1.32,
    "checkpoint_bytes": 559104,
    "peak_device_gib": None,
}
JOB_EXAMPLE: dict[str, Any] = {
    **SUMMARY_EXAMPLE,
    "spec": RESOLVED_SPEC_EXAMPLE,
    "start_checks": START_CHECKS_EXAMPLE,
    "estimate": ESTIMATE_EXAMPLE,
    "usage": JOB_USAGE_EXAMPLE,
}
VALIDATION_EXAMPLE: dict[str, Any] = {
    "valid": True,
    "errors": [],
    "warnings": ["evaluation.rewards is empty: the report will show no proof that the model improved"],
    "resolved_spec": RESOLVED_SPEC_EXAMPLE,
    "estimate": ESTIMATE_EXAMPLE,
}
