"""An evaluation as the OpenAPI document shows it: asked for, on its way, reported, and drawn once more."""

from typing import Any

from alignment_core.reports import ProofReport
from alignment_core.spec import ProofSpec
from service.api.schemas.runs import REPORT_EXAMPLE

EVALUATION_ID, VERIFICATION_ID = "eval_01kaf0h2v7x3m5q8r1s4t6w9yz", "vfy_01kaf0k4x9z5p7s0t3v6w8yabc"

SPEC_EXAMPLE: dict[str, Any] = {
    "contenders": [
        {"name": "base", "model": "shapes"},
        {"name": "aligned", "model": "ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2"},
        {"name": "styled", "model": "shapes", "lora": "wts_01kaf0f6a2c4e6g8j0m2p4r6t8", "strength": 0.8},
    ],
    "prompts": ["a big red circle on the left", "a small blue star on the right"],
    "seeds_per_prompt": 2,
    "rewards": ["colorfulness"],
    "sampling": {"num_inference_steps": 20, "guidance_scale": 5.0},
}
CREATE_EXAMPLE: dict[str, Any] = {"spec": SPEC_EXAMPLE, "name": "three of them", "metadata": {"team": "design"}}
RESOLVED_EXAMPLE = ProofSpec.model_validate(SPEC_EXAMPLE).resolved()
SPEC_SHA256 = RESOLVED_EXAMPLE.sha256()

VALIDATION_EXAMPLE: dict[str, Any] = {
    "valid": True,
    "errors": [],
    "warnings": [],
    "resolved_spec": RESOLVED_EXAMPLE.model_dump(mode="json"),
    "estimate": {"num_images": 12, "memory": None, "duration": None, "stored": None},
}

VERIFICATION_EXAMPLE: dict[str, Any] = {
    "id": VERIFICATION_ID,
    "object": "verification",
    "evaluation_id": EVALUATION_ID,
    "status": "succeeded",
    "is_terminal": True,
    "queue": None,
    "error": None,
    "report": {
        "spec_sha256": SPEC_SHA256,
        "scores_sha256": "5f" * 32,
        "outcome": "identical",
        "tolerance": 0.05,
        "num_images": 12,
        "num_equal_images": 12,
        "scores": [{"name": "colorfulness", "num_equal": 12, "largest": 0.0}],
        "changed": [],
        "prompts": ["a big red circle on the left", "a small blue star on the right"],
        "precision": "fp32",
        "card": "AMD EPYC 9575F",
        "cards_then": ["AMD EPYC 9575F"],
        "versions": {"attune": "0.1.0"},
        "versions_then": {"attune": "0.1.0"},
        "elapsed_seconds": 4.1,
        "written_at": "2026-11-20T09:18:02Z",
    },
    "created_at": "2026-11-20T09:17:50Z",
    "finished_at": "2026-11-20T09:18:02Z",
}

SUMMARY_EXAMPLE: dict[str, Any] = {
    "id": EVALUATION_ID,
    "object": "evaluation",
    "name": "three of them",
    "metadata": {"team": "design"},
    "status": "running",
    "is_terminal": False,
    "phase": "sampling",
    "attempt": 1,
    "queue": None,
    "progress": {"done": 6, "total": 12, "percent": 50.0},
    "error": None,
    "spec_sha256": SPEC_SHA256,
    "created_at": "2026-11-20T09:15:00Z",
    "queued_at": "2026-11-20T09:15:00Z",
    "updated_at": "2026-11-20T09:15:31Z",
    "started_at": "2026-11-20T09:15:02Z",
    "finished_at": None,
}
EVALUATION_EXAMPLE: dict[str, Any] = {
    **SUMMARY_EXAMPLE,
    "spec": RESOLVED_EXAMPLE.model_dump(mode="json"),
    "best": None,
    "scores_url": None,
    "verifications": [],
}

PROOF_REPORT_EXAMPLE: dict[str, Any] = ProofReport.model_validate(
    {
        "subject_id": EVALUATION_ID,
        "name": "three of them",
        "anchor": "base",
        "best": "aligned",
        "contenders": [
            {
                "name": name,
                "model": "shapes",
                "denoiser": None,
                "lora": lora,
                "strength": None if lora is None else 1.0,
                "sha256": sha * 32,
                "base_model_sha256": "cd" * 32,
                "denoiser_sha256": None,
                "lora_sha256": None if lora is None else "ef" * 32,
                "family": "sd",
                "resolution": 32,
                "prediction_type": "epsilon",
                "space_sha256": "1a" * 32,
            }
            for name, lora, sha in (("base", None, "aa"), ("aligned", "ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2", "bb"))
        ],
        "judges": [{"name": "colorfulness", "sha256": "dc" * 32}],
        "comparisons": [
            {
                **REPORT_EXAMPLE,
                "base": {"label": "base", "step": None, "spec_sha256": None},
                "policy": {"label": "aligned", "step": None, "spec_sha256": None},
                "interval_method": "bca",
                "images": [],
            }
        ],
        "num_prompts": 1,
        "seeds_per_prompt": 2,
        "num_images": 4,
        "prompts_sha256": "2b" * 32,
        "scores_sha256": "5f" * 32,
        "spec": RESOLVED_EXAMPLE.model_dump(mode="json", exclude={"prompts"}),
        "spec_sha256": SPEC_SHA256,
        "seed": 0,
        "confidence": 0.95,
        "bootstrap_resamples": 10000,
        "interval_method": "bca",
        "precision": "fp32",
        "cards": ["AMD EPYC 9575F"],
        "versions": {"attune": "0.1.0"},
        "warnings": [],
        "elapsed_seconds": 14.2,
        "written_at": "2026-11-20T09:16:40Z",
    }
).model_dump(mode="json")
