"""One run of the benchmark, in a process of its own: `python -m benchmarks.cell SPEC.json RESULT.json CACHE_DIR`."""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch.nn.modules.module import register_module_forward_hook

from alignment_core import JobSpec, align
from alignment_core.evaluation.files import replace_file
from alignment_core.events import EvaluationCompleted, PhaseChanged
from alignment_core.reports import EvaluationReport


class Meter:
    """Image rows that the denoiser was asked for, and CPU seconds, of training alone."""

    def __init__(self) -> None:
        self.is_training = False
        self.unet_rows = 0
        self.cpu_seconds = 0.0
        self._began = 0.0

    def forward(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if self.is_training and isinstance(module, UNet2DConditionModel):
            self.unet_rows += len(output[0] if isinstance(output, tuple) else output.sample)

    def phase(self, name: str) -> None:
        """Begin with training and end with whatever comes after it."""
        if self.is_training:
            self.cpu_seconds += time.process_time() - self._began
        self.is_training, self._began = name == "training", time.process_time()


def run_cell(spec: JobSpec, cache_dir: Path) -> dict[str, Any]:
    """Train and judge; the figures of the table's columns."""
    meter = Meter()
    hook = register_module_forward_hook(meter.forward)
    report: EvaluationReport | None = None
    try:
        with tempfile.TemporaryDirectory() as workdir:
            for event in align(spec, Path(workdir), cache_dir=cache_dir):
                if isinstance(event, PhaseChanged):
                    meter.phase(event.phase)
                if isinstance(event, EvaluationCompleted):
                    report = EvaluationReport.model_validate(event.report)
    finally:
        hook.remove()
    assert report is not None, "the spec has prompts"
    return {**figures_of(report), "unet_forwards": meter.unet_rows, "cpu_seconds": round(meter.cpu_seconds, 1)}


def figures_of(report: EvaluationReport) -> dict[str, Any]:
    """The columns that a report knows."""
    reward, held_out = report.rewards
    assert report.prompt_following is not None
    assert report.diversity is not None
    assert report.drift is not None
    return {
        "spec_sha256": report.spec_sha256,
        "base_model_sha256": report.base_model_sha256,
        "base_reward": reward.base_mean,
        "gain": reward.gain,
        "win_rate": reward.win_rate,
        "base_held_out": held_out.base_mean,
        "held_out_gain": held_out.gain,
        "base_following": report.prompt_following.base_mean,
        "following": report.prompt_following.policy_mean,
        "base_diversity": report.diversity.base,
        "diversity": report.diversity.policy,
        "drift": report.drift.eps_dist,
    }


def main() -> None:
    spec_path, result_path, cache_dir = map(Path, sys.argv[1:4])
    spec = JobSpec.model_validate_json(spec_path.read_text())
    replace_file(result_path, json.dumps(run_cell(spec, cache_dir), indent=1).encode())


if __name__ == "__main__":
    main()
