"""The events of a run that is lost after step 5 and goes on from its checkpoint of step 3, as trackers hear them."""

from pathlib import Path
from typing import Any

from PIL import Image

from alignment_core.events import (
    CheckpointSaved,
    EvaluationCompleted,
    Event,
    ProbeCompleted,
    RunCompleted,
    RunStarted,
    SamplesDrawn,
    StepCompleted,
    ValidationCompleted,
)
from alignment_core.reports import (
    ComparedModel,
    EvaluationReport,
    Interval,
    RewardComparison,
)
from alignment_core.spec.places import RunLabel
from alignment_core.tracking.points import Subject

JOB_ID = "job_01kaf0h2v7x3m5q8r1s4t6w9yz"
SPEC: dict[str, Any] = {"method": {"type": "diffusion_dpo", "beta": 2000.0}, "seed": 7}


def subject(workdir: Path) -> Subject:
    workdir.mkdir(parents=True, exist_ok=True)
    label = RunLabel(job_id=JOB_ID, job_name="shapes", metadata={"team": "design"})
    return Subject(workdir, label)


def loss_of(step: int) -> float:
    return 1.0 / step


def started(resumed_from_step: int | None = None) -> RunStarted:
    return RunStarted(
        spec=SPEC,
        spec_sha256="0" * 64,
        learning_rate=1e-4,
        examples_per_step=2,
        total_steps=6,
        device="cpu",
        precision="fp32",
        resumed_from_step=resumed_from_step,
        versions={"attune": "0.1.0"},
    )


def step(number: int) -> StepCompleted:
    return StepCompleted(step=number, total_steps=6, metrics={"loss": loss_of(number)}, step_seconds=0.5)


def saved(number: int) -> CheckpointSaved:
    return CheckpointSaved(step=number, path=f"checkpoints/{number}", kind="lora", is_final=False, size_bytes=1)


def before_the_loss() -> list[Event]:
    return [started(), step(1), step(2), step(3), saved(3), step(4), step(5)]


def after_the_loss(workdir: Path) -> list[Event]:
    Image.new("RGB", (4, 2), "red").save(workdir / "samples.png")
    return [
        started(resumed_from_step=3),
        step(4),
        step(5),
        ValidationCompleted(step=5, metrics={"loss": 0.7}),
        ProbeCompleted(step=5, num_prompts=2, metrics={"brightness_gain": 0.25}, is_best=True),
        step(6),
        saved(6),
        SamplesDrawn(step=6, path="samples.png", prompts=["a red circle"]),
        EvaluationCompleted(step=6, path="report.json", report=report().model_dump(mode="json")),
        RunCompleted(step=6),
    ]


def report() -> EvaluationReport:
    around = Interval(low=0.05, high=0.15, confidence=0.95)
    line = RewardComparison(
        name="brightness",
        base_mean=0.4,
        policy_mean=0.5,
        gain=0.1,
        gain_interval=around,
        win_rate=0.75,
        num_ties=0,
        bootstrap_interval=Interval(low=0.6, high=0.9, confidence=0.95),
    )
    return EvaluationReport(
        step=6,
        base=ComparedModel(label="base", step=0, spec_sha256="0" * 64),
        policy=ComparedModel(label="aligned", step=6, spec_sha256="0" * 64),
        num_prompts=2,
        seeds_per_prompt=1,
        num_inference_steps=2,
        guidance_scale=1.0,
        primary_reward="brightness",
        verdict="improved",
        rewards=[line],
        prompt_following=None,
        diversity=None,
        spec_sha256="0" * 64,
        base_model_sha256="1" * 64,
        versions={},
        elapsed_seconds=1.0,
        images=[],
    )
