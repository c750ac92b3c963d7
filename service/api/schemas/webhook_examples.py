"""What webhooks are told, one example of each type: for the reference and for docs/webhooks.md."""

from typing import Any

from service.api.schemas.aliases import CHECKPOINT_ID
from service.api.schemas.job_examples import JOB_ID
from service.store.webhook_events import PING, VERSION

WEBHOOK_ID = "whk_01kaf0s2t4v6x8z0b2d4f6h8k0"
GAIN = {"reward": "colorfulness", "gain": 0.17, "low": 0.15, "high": 0.19}
JOB = {
    "id": JOB_ID,
    "name": "my first job",
    "state": "succeeded",
    "check_only": False,
    "step": 400,
    "total_steps": 400,
    "stopped_by": None,
    "error_code": None,
    "result_checkpoint_id": CHECKPOINT_ID,
    "sweep_id": None,
    "gain": GAIN,
}
ENDED_BADLY = {"result_checkpoint_id": None, "gain": None, "step": 120}
EVALUATION = {
    "id": "eval_01kaf0p1r3t5v7x9z1b3d5f7h9",
    "name": "SD 1.5 and two of its kind",
    "state": "succeeded",
    "error_code": None,
    "best": "aligned",
    "gains": [{**GAIN, "contender": "aligned"}],
}
UPLOAD = {
    "id": "ds_01kaf0e4y6z8a0b2c4d6e8f0g2",
    "name": "clicks of October",
    "state": "ready",
    "error_code": None,
    "num_rows": 5000,
    "num_usable_rows": 4988,
}
LORA = {**UPLOAD, "id": "wts_01kaf0e4y6z8a0b2c4d6e8f0g2", "name": "house style"} | dict.fromkeys(
    ("num_rows", "num_usable_rows")
)
ALIAS = {
    "alias": "champion",
    "promotion_id": "prm_01kaf0q2s4u6w8y0a2c4e6g8j0",
    "checkpoint_id": CHECKPOINT_ID,
    "previous_checkpoint_id": None,
    "job_id": JOB_ID,
    "step": 400,
    "forced": False,
    "gain": GAIN,
}
DATA_EXAMPLES: dict[str, dict[str, Any]] = {
    "job.succeeded": JOB,
    "job.stopped": {**JOB, "step": 260, "stopped_by": "reward_hacking"},
    "job.failed": {**JOB, **ENDED_BADLY, "state": "failed", "error_code": "trainer_killed"},
    "job.cancelled": {**JOB, **ENDED_BADLY, "state": "cancelled"},
    "job.guard_spoke": {"id": JOB_ID, "name": "my first job", "guard": "reward_hacking", "step": 260},
    "evaluation.succeeded": EVALUATION,
    "evaluation.failed": {**EVALUATION, "state": "failed", "error_code": "trainer_killed", "best": None, "gains": []},
    "evaluation.cancelled": {**EVALUATION, "state": "cancelled", "best": None, "gains": []},
    "evaluation.verified": {
        "id": EVALUATION["id"],
        "verification_id": "vfy_01kaf0p8r0t2v4x6z8b0d2f4h6",
        "state": "succeeded",
        "error_code": None,
        "outcome": "identical",
        "num_images": 16,
        "num_equal_images": 16,
    },
    "sweep.ended": {
        "id": "swp_01kaf0r2t4v6x8z0b2d4f6h8k0",
        "name": "which beta",
        "state": "ended",
        "num_trials": 6,
        "num_succeeded": 5,
        "num_failed": 1,
        "num_cancelled": 0,
        "best": {
            "number": 3,
            "job_id": "job_01kaf0n4a7c0e3g6j9m2p5r8s1",
            "checkpoint_id": "ckpt_01kaf0n5b8d1f4h7k0m3p6r9t2",
            "gain": GAIN,
        },
    },
    "dataset.ready": UPLOAD,
    "dataset.failed": {**UPLOAD, "state": "failed", "error_code": "dataset_unusable", "num_usable_rows": 0},
    "weights.ready": LORA,
    "weights.failed": {**LORA, "state": "failed", "error_code": "weights_unusable"},
    "champion.changed": ALIAS,
    "alias.changed": {**ALIAS, "alias": "candidate", "gain": None},
    "webhook.disabled": {
        "id": "whk_01kaf0t2v4x6z8b0d2f4h6k8m0",
        "because": "failing",
        "failing_since": "2026-11-15T08:00:00Z",
    },
    PING: {"webhook_id": WEBHOOK_ID},
}
EXAMPLES = {
    name: {"type": name, "timestamp": "2026-11-20T10:02:11Z", "version": VERSION, "data": data}
    for name, data in DATA_EXAMPLES.items()
}

WEBHOOK_EXAMPLE: dict[str, Any] = {
    "id": WEBHOOK_ID,
    "object": "webhook",
    "url": "https://hooks.example.org/attune",
    "events": ["job.succeeded", "job.failed", "champion.changed"],
    "description": "the team's channel",
    "enabled": True,
    "disabled_because": None,
    "failing_since": None,
    "old_secret_until": None,
    "created_at": "2026-11-20T09:10:00Z",
    "updated_at": "2026-11-20T09:10:00Z",
}
DELIVERY_EXAMPLE: dict[str, Any] = {
    "id": "dlv_01kaf0s6t8v0x2z4b6d8f0h2k4",
    "object": "webhook_delivery",
    "webhook_id": WEBHOOK_ID,
    "type": "job.succeeded",
    "state": "pending",
    "attempts": 1,
    "next_try_at": "2026-11-20T10:02:17Z",
    "tries": [
        {
            "time": "2026-11-20T10:02:12Z",
            "status": 503,
            "milliseconds": 84,
            "error": None,
            "answer": "upstream is restarting",
        }
    ],
    "payload": EXAMPLES["job.succeeded"],
    "created_at": "2026-11-20T10:02:11Z",
    "ended_at": None,
}
