"""Candidates as the OpenAPI document shows them: asked for, on their way, and an image of them."""

from typing import Any

from alignment_core.spec import CandidatesSpec

CANDIDATES_ID, IMAGE_ID = "cand_01kaf0h2v7x3m5q8r1s4t6w9yz", "img_01kaf0nd3f5h7k9m1p3r5t7v9x"

SPEC_EXAMPLE: dict[str, Any] = {
    "contenders": [{"name": "base", "model": "shapes"}],
    "prompts": ["a big red circle on the left", "a small blue star on the right"],
    "seeds_per_prompt": 4,
    "sampling": {"num_inference_steps": 20, "guidance_scale": 5.0},
}
CREATE_EXAMPLE: dict[str, Any] = {"spec": SPEC_EXAMPLE, "name": "shapes to judge", "metadata": {"team": "design"}}
RESOLVED_EXAMPLE = CandidatesSpec.model_validate(SPEC_EXAMPLE).resolved()

VALIDATION_EXAMPLE: dict[str, Any] = {
    "valid": True,
    "errors": [],
    "warnings": [],
    "resolved_spec": RESOLVED_EXAMPLE.model_dump(mode="json"),
    "estimate": {"num_images": 8, "memory": None, "duration": None, "stored": None},
}

SUMMARY_EXAMPLE: dict[str, Any] = {
    "id": CANDIDATES_ID,
    "object": "candidates",
    "name": "shapes to judge",
    "metadata": {"team": "design"},
    "status": "running",
    "is_terminal": False,
    "phase": "sampling",
    "attempt": 1,
    "queue": None,
    "progress": {"done": 4, "total": 8, "percent": 50.0},
    "error": None,
    "spec_sha256": RESOLVED_EXAMPLE.sha256(),
    "created_at": "2026-11-20T09:15:00Z",
    "queued_at": "2026-11-20T09:15:00Z",
    "updated_at": "2026-11-20T09:15:31Z",
    "started_at": "2026-11-20T09:15:02Z",
    "finished_at": None,
}

RECIPE_EXAMPLE: dict[str, Any] = {
    "contender": {
        "name": "base",
        "model": "shapes",
        "denoiser": None,
        "lora": None,
        "strength": None,
        "sha256": "aa" * 32,
        "base_model_sha256": "cd" * 32,
        "denoiser_sha256": None,
        "lora_sha256": None,
        "family": "sd",
        "resolution": 32,
        "prediction_type": "epsilon",
        "space_sha256": "1a" * 32,
    },
    "noise": {"distribution": "standard_normal", "generator": "torch_cpu", "dtype": "float32", "shape": [4, 8, 8]},
    "num_inference_steps": 20,
    "guidance_scale": 5.0,
    "precision": "fp32",
    "card": "AMD EPYC 9575F",
    "versions": {"attune": "0.1.0"},
}
IMAGE_EXAMPLE: dict[str, Any] = {
    "id": IMAGE_ID,
    "object": "candidate_image",
    "candidates_id": CANDIDATES_ID,
    "contender": "base",
    "position": 0,
    "number": 1,
    "prompt": "a big red circle on the left",
    "seed": 2899170623,
    "attempt": 1,
    "width": 32,
    "height": 32,
    "pixels_sha256": "7e" * 32,
    "reused": False,
    "size_bytes": 1480,
    "sha256": "5f" * 32,
    "recipe": RECIPE_EXAMPLE,
    "image_url": f"/v1/candidates/{CANDIDATES_ID}/images/{IMAGE_ID}.png",
    "created_at": "2026-11-20T09:15:20Z",
}
