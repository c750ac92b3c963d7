"""Two files that were made elsewhere, against their base model, over HTTP: a LoRA in kohya's names and a whole U-Net."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from attune.client import Client
from tests.alignment_core.families.loras import pipeline_of, random_layers, save_kohya
from tests.e2e.conftest import ASSETS, Deployment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def attune(deployment: Deployment, *arguments: str) -> str:
    """What the command prints."""
    environment = os.environ | {"ATTUNE_URL": f"http://127.0.0.1:{deployment.port}", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "attune", *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def uploaded(client: Client, path: Path) -> str:
    return client.wait_for_weights(client.upload_weights(path, name=path.stem).id, 60).id


def test_foreign_files_get_a_report_and_are_drawn_once_more(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_worker("only")
    layers = random_layers(
        pipeline_of(ASSETS / "model").unet, ("to_q", "to_v")
    )  # each with a rank and an alpha of its own
    style = save_kohya({"unet": layers}, tmp_path / "style.safetensors")
    own = load_file(ASSETS / "model" / "unet" / "diffusion_pytorch_model.safetensors")
    torch.manual_seed(2)
    save_file({name: one + 0.01 * torch.randn_like(one) for name, one in own.items()}, tmp_path / "unet.safetensors")
    with deployment.client as client:
        lora, unet = uploaded(client, style), uploaded(client, tmp_path / "unet.safetensors")
        spec: dict[str, Any] = {
            "contenders": [
                {"name": "base", "model": "shapes"},
                {"name": "styled", "model": "shapes", "lora": lora, "strength": 0.8},
                {"name": "tuned", "model": "shapes", "denoiser": unet},
            ],
            "prompts": ["a small red circle", "a big blue square"],
            "rewards": ["colorfulness"],
            "prompt_following": {"type": "attribute_classifier", "weights": "shapes-judge"},
            "sampling": {"num_inference_steps": 2, "guidance_scale": 1.0},
            "bootstrap_resamples": 100,
            "resources": {"num_cpu_threads": 1},
        }
        (tmp_path / "spec.json").write_text(json.dumps(spec))
        scores = tmp_path / "scores.parquet"
        said = attune(deployment, "evaluate", str(tmp_path / "spec.json"), "--scores", str(scores))
        evaluation_id = said.split()[0]
        assert "styled" in said
        assert "12 of 12 images" in said
        found = client.evaluations.get(evaluation_id)
        report = client.evaluations.report(evaluation_id)
        assert found.status == "succeeded"
        styled, tuned = report.comparisons
        for one in (styled, tuned):
            assert one.rewards[0].gain != 0
            assert one.prompt_following is not None
            assert one.drift is not None
        assert [(one.lora, one.denoiser) for one in report.contenders] == [(None, None), (lora, None), (None, unet)]
        command = [sys.executable, "-m", "alignment_core", "standings", str(scores)]
        again = json.loads(subprocess.run(command, capture_output=True, check=True, stdin=subprocess.DEVNULL).stdout)
        assert again["standings"][0]["rewards"][0]["gain"] == styled.rewards[0].gain
        assert "identical: 6 of 6 images are equal" in attune(
            deployment, "evaluation", "verify", evaluation_id, "--prompts", "1"
        )
        page = client.evaluations.download_page(evaluation_id, tmp_path / "page.html", contender="tuned")
        assert "tuned against base" in page.read_text()
        assert evaluation_id[:12] in attune(deployment, "evaluation", "list")
        client.evaluations.delete(evaluation_id)
        assert "no evaluations" in attune(deployment, "evaluation", "list")
