"""Jobs that start from what others left: an uploaded LoRA, the LoRA of an earlier job, a whole model of an earlier job."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from attune.client import Client
from tests.alignment_core.families.loras import pipeline_of, random_layers, save_kohya
from tests.e2e.conftest import ASSETS, Deployment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LORA = "pytorch_lora_weights.safetensors"
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def spec_of(dataset_id: str, **changes: Any) -> dict[str, Any]:
    return {
        "model": "shapes",
        "method": {"type": "diffusion_dpo", "dataset": dataset_id},
        "adapter": {"type": "lora", "rank": 4, "alpha": 4.0},
        "training": {"steps": 2, "batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-3},
        "evaluation": {
            **{"prompts": ["a small red circle", "a big blue square"], "rewards": ["colorfulness"]},
            **{"num_inference_steps": 2, "guidance_scale": 1.0, "bootstrap_resamples": 100},
        },
        "resources": {"num_cpu_threads": 1},
        **changes,
    }


def finished(client: Client, spec: dict[str, Any]) -> str:
    """Id of a job that succeeded."""
    job = client.wait_for_job(client.create_job(spec).id, timeout_seconds=240)
    assert job.status == "succeeded", job.error
    return job.id


def test_what_one_job_leaves_the_next_one_starts_from(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_worker("only")
    layers = random_layers(pipeline_of(ASSETS / "model").unet, ATTENTION, rank=4, alpha=4.0)
    path = save_kohya({"unet": layers}, tmp_path / "style.safetensors")
    with deployment.client as client:
        dataset_id = client.wait_for_dataset(client.upload_dataset(ASSETS / "pairs.parquet").id, 60).id
        weights = client.wait_for_weights(client.upload_weights(path, name="style").id, 60)
        assert weights.report is not None
        assert (weights.report.format, weights.report.ranks) == ("kohya", [4])

        merged = finished(client, spec_of(dataset_id, start={"lora": weights.id}))
        start = client.report(merged).subject
        assert start is not None
        assert start.start is not None
        assert (start.start.lora, start.start.mode, start.start.initial) == (weights.id, "merge", "lora")
        joined = load_file(client.download_checkpoint(client.result_checkpoint(merged), tmp_path / "merged") / LORA)
        assert {value.shape[0] for name, value in joined.items() if "lora_A" in name} == {8}, "ranks add up"

        trained = finished(client, spec_of(dataset_id, start={"lora": weights.id, "mode": "train"}))
        checkpoint = client.result_checkpoint(trained)
        went_on = finished(client, spec_of(dataset_id, start={"lora": checkpoint, "mode": "train"}))
        before, after = (
            load_file(client.download_checkpoint(client.result_checkpoint(job), tmp_path / job) / LORA)
            for job in (trained, went_on)
        )
        moved = max(float(np.abs(after[name] - before[name]).max()) for name in before)
        assert 0 < moved < 0.01, "two steps of 1e-3 from where the first job ended"

        full = finished(client, spec_of(dataset_id, adapter="full", start={"lora": checkpoint}))
        model = client.result_checkpoint(full)
        on_model = finished(client, spec_of(dataset_id, model=model))
        assert client.get_job(on_model).spec["model"] == {"type": "checkpoint", "id": model}
        subject = client.report(on_model).subject
        assert subject is not None
        assert subject.model == model
