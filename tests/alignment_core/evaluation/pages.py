"""A report with everything in it, whose texts try to break out of the page."""

import base64

import numpy as np

from alignment_core.evaluation.compare import Comparison, seeds_of
from alignment_core.evaluation.draw_and_judge import Drawn
from alignment_core.evaluation.page import render_page
from alignment_core.evaluation.report import Bootstrap, Provenance, build_report
from alignment_core.events import FileRecord, TimestepBin
from alignment_core.reports import (
    BinTable,
    ComparedModel,
    Curve,
    Drift,
    DriftBin,
    EvaluationReport,
    RunWarning,
)

HOSTILE = (
    "</figure></style><script>alert('a')</script><img src=http://elsewhere.test/a.png onerror=alert(1)>\"'&{{7*7}}"
)


def comparison(num_prompts: int = 24, num_seeds: int = 2, size: int = 16, *, with_judge: bool = True) -> Comparison:
    random = np.random.default_rng(0)
    scores = {
        "colour": random.normal(0.5, 0.1, (num_prompts, num_seeds)),
        "glow": random.normal(size=(num_prompts, num_seeds)),
    }
    after = {
        "colour": scores["colour"] + random.normal(0.2, 0.05, (num_prompts, num_seeds)),
        "glow": scores["glow"] - 0.01,
    }
    if with_judge:
        scores["prompt_following"] = after["prompt_following"] = np.ones((num_prompts, num_seeds))
    images = random.integers(0, 256, (2, num_seeds, size, size, 3), dtype=np.uint8)
    distances = [random.uniform(0.1, 0.2, (num_prompts, 1)) if num_seeds > 1 else None for _ in range(2)]
    return Comparison(
        prompts=(HOSTILE, *(f"prompt {index}" for index in range(1, num_prompts))),
        seeds=seeds_of(0, num_prompts, num_seeds),
        shown=(0, num_prompts // 2),
        base=Drawn(scores, distances[0], images),
        policy=Drawn(after, distances[1], 255 - images),
    )


def bins(*margins: float | None) -> list[TimestepBin]:
    return [
        TimestepBin(
            first_timestep=1000 - 100 * (row + 1),
            last_timestep=999 - 100 * row,
            count=0 if margin is None else 4,
            reward_magnitude=None,
            implicit_accuracy=None if margin is None else 0.9,
            margin=margin,
            signal_variance=None if margin is None else 2e-6,
            weight=None if margin is None else 1.0,
        )
        for row, margin in enumerate(margins)
    ]


def full_report(compared: Comparison) -> EvaluationReport:
    steps = list(range(1, 201))
    provenance = Provenance(
        step=200,
        base=ComparedModel(label="initial model", step=None, spec_sha256=None),
        policy=ComparedModel(
            label="step 200",
            step=200,
            spec_sha256="a" * 64,
            files=[FileRecord(path="pytorch_lora_weights.safetensors", size_bytes=9, sha256="c" * 64)],
        ),
        num_inference_steps=12,
        guidance_scale=2.5,
        spec_sha256="a" * 64,
        base_model_sha256="b" * 64,
        dataset_sha256="d" * 64,
        spec={"method": {"type": "tailorpo", "prompts": [HOSTILE]}},
        seed=7,
        method="tailorpo",
        reference="hard_copy",
        reg_mode="gate",
        device="cpu",
        precision="fp32",
        trained=frozenset({"colour"}),
        curves=[
            Curve(split="training", metric="loss", steps=steps, values=[1 / step for step in steps]),
            Curve(split="validation", metric="loss", steps=[100, 200], values=[0.5, 0.4]),
            Curve(split="held_out", metric="reward/colour", steps=[0, 200], values=[0.5, 0.7]),
            Curve(split="training", metric="learning_rate", steps=steps, values=[1e-5] * 200),
        ],
        tables=[BinTable(split="training", since_step=100, step=200, bins=bins(1.5, -0.5, None))],
        warnings=[RunWarning(code="odd", message=HOSTILE, step=3)],
    )
    drift = Drift(
        eps_dist=0.01,
        by_timestep=[DriftBin(first_timestep=500, last_timestep=999, eps_dist=0.01)],
        num_draws=16,
        relative_weight_change=0.05,
    )
    return build_report(compared, provenance, Bootstrap(200, 0.95, 0), 1.5, drift)


def full_page() -> str:
    compared = comparison()
    return render_page(full_report(compared), compared)


def image_bytes(source: str) -> bytes:
    return base64.b64decode(source.split(",", 1)[1], validate=True)
