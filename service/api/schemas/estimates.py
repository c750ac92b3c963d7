"""What a job will take, as far as its spec, its data and the files of its model say."""

from typing import Any

from pydantic import Field

from alignment_core.costs.memory import Memory
from alignment_core.costs.seconds import Duration
from alignment_core.costs.work import Disk
from service.api.schemas.base import Resource

ESTIMATE_EXAMPLE: dict[str, Any] = {
    "examples_per_step": 64,
    "optimizer_steps": 400,
    "num_training_examples": 1900,
    "epochs": 13.47,
    "num_checkpoints": 1,
    "evaluation_images": 128,
    "num_trainable_parameters": 46592,
    "memory": {
        "peak_gib": 0.158,
        "phase": "training",
        "weights": 0.004,
        "gradients": 0.0,
        "optimizer": 0.001,
        "reference": 0.0,
        "activations": 0.153,
        "vae_decode": 0.008,
        "conditioning": 0.001,
        "judges": 0.0,
    },
    "duration": {
        "card": "AMD EPYC 9575F",
        "source": "jobs",
        "phases": {
            "loading": {"low": 3.0, "expected": 6.0, "high": 12.0},
            "training": {"low": 70.0, "expected": 84.0, "high": 110.0},
            "saving": {"low": 0.1, "expected": 0.1, "high": 0.2},
        },
        "total": {"low": 73.1, "expected": 90.1, "high": 122.0},
    },
    "calibration": {
        "shape": "diffusion_dpo, sd, lora, AMD EPYC 9575F, jobs",
        "num_jobs": 23,
        "low": 84.2,
        "high": 103.0,
    },
    "disk": {"checkpoint_bytes": 559104, "checkpoints_bytes": 559104, "cache_bytes": 10485760},
}


class Calibration(Resource):
    """How far estimates of such jobs were off."""

    shape: str = Field(description="Jobs that are compared: method, family, adapter, card, and what the rate rests on.")
    num_jobs: int = Field(description="That have succeeded in a single attempt, the latest 50 at most.")
    low: float | None = Field(
        description="Seconds; four of five such jobs take from here to `high`. Null below 9 jobs."
    )
    high: float | None


class Estimate(Resource):
    """What follows from the spec, the data and the files of the model."""

    examples_per_step: int = Field(
        description="Pairs, judged images, or prompts and steps of trajectories, in one optimiser step of all processes."
    )
    optimizer_steps: int
    num_training_examples: int | None = Field(
        description="Usable pairs or images less the validation split; null when not known."
    )
    epochs: float | None = Field(description="How often each of them is seen; null when their number is not known.")
    num_checkpoints: int = Field(description="Checkpoints that will be saved, the last step's included.")
    evaluation_images: int | None = Field(
        description="Images that evaluation samples, base and policy together; null when the prompts come from data."
    )
    num_trainable_parameters: int | None = Field(
        description="Of the adapter, or of the whole denoiser; null until the files of the model have been read."
    )
    duration: Duration | None = Field(
        description="Seconds from a worker's claim on, by phase and in all, between bounds; null until the files of the model have "
        "been read."
    )
    calibration: Calibration | None = Field(
        default=None, description="The total again, by what became of estimates of such jobs; null without a duration."
    )
    disk: Disk | None = Field(description="Bytes of checkpoints and caches; null until then.")
    memory: Memory | None = Field(
        description="GiB of each process, by component, within a tenth of what is measured; null until the files of the model "
        "have been read. Judges are not counted."
    )
