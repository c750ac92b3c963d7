"""A LoRA of PEFT's on the Hub is read with the config beside it, which alone says its alpha, and refused where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.alignment_core.families.loras import pipeline_of, random_layers, save_peft
from tests.servers.hub import COMMIT, REPO, hub_of

PROGRAM = """
import json, sys
import torch
from alignment_core.errors import ModelError
from alignment_core.load.model import load_model
from alignment_core.load.start import load_start
from alignment_core.spec import LocalSource
from alignment_core.spec.start import StartSpec

model, *specs = sys.argv[1:]
source = LocalSource(path=model)
family = load_model(source, device=torch.device("cpu"), frozen_dtype=torch.float32, denoiser_dtype=torch.float32)
told = []
for spec in specs:
    try:
        start = load_start(StartSpec.model_validate_json(spec).resolved(), "lora", family)
        told.append(sorted({layer.alpha for layer in start.file.layers.values()}))
    except ModelError as error:
        told.append(error.code)
print(json.dumps(told))
"""


@pytest.mark.slow  # a process of its own, which alone may have another Hub
def test_the_config_beside_a_lora_of_pefts_says_its_alpha(tiny_model: Path, tmp_path: Path) -> None:
    layers = random_layers(pipeline_of(tiny_model).unet, ("to_q",), rank=2, alpha=3.0)
    for name in ("with", "without"):
        (tmp_path / "repository" / name).mkdir(parents=True)
        save_peft(layers, tmp_path / "repository" / name / "adapter_model.safetensors")
    (tmp_path / "repository" / "without" / "adapter_config.json").unlink()
    source = {"type": "hub", "repo_id": REPO, "revision": COMMIT}
    starts = [
        {"lora": {**source, "file": "with/adapter_model.safetensors"}, "alpha": 16.0},
        {"lora": {**source, "file": "without/adapter_model.safetensors"}},
        {"lora": {**source, "file": "without/adapter_model.safetensors"}, "alpha": 16.0},
    ]
    with hub_of(tmp_path / "repository") as (address, _):
        environment = {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(tiny_model), *map(json.dumps, starts)],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [[3.0], "lora_alpha_unknown", [16.0]]
