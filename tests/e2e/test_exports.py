"""A job over HTTP on both sets of parts, and its checkpoint in every form: downloaded, checked, loaded by the tool."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from safetensors.numpy import load_file

from alignment_core.spec.exports import OF_A_LORA, OF_A_WHOLE_MODEL, ONE_FILE, ExportFormat
from attune.client import Client
from attune.errors import AttuneError
from tests.e2e.conftest import ASSETS, Deployment

STEPS = 2


def spec_of(dataset_id: str, adapter: dict[str, Any]) -> dict[str, Any]:
    training = {"steps": STEPS, "batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-3}
    return {
        "model": {"type": "catalog", "name": "shapes"},
        "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": dataset_id}, "beta": 1000},
        "adapter": adapter,
        "training": training,
        "evaluation": {
            "prompts": ["a small red circle"],
            "num_inference_steps": 2,
            "rewards": [{"type": "brightness"}],
        },
    }


@pytest.mark.slow
@pytest.mark.timeout(280)
@pytest.mark.filterwarnings("ignore:.*peft:UserWarning", "ignore::FutureWarning")
def test_a_job_is_had_in_every_form_that_other_tools_read(deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_worker("only")
    with deployment.client as client:
        dataset = client.wait_for_dataset(client.upload_dataset(ASSETS / "pairs.parquet").id, timeout_seconds=60)
        lora, whole = (
            trained(client, spec_of(dataset.id, adapter)) for adapter in ({"type": "lora", "rank": 4}, {"type": "full"})
        )
        found = {one: downloaded(client, lora, tmp_path / "lora", one) for one in OF_A_LORA}
        of_whole = {one: downloaded(client, whole, tmp_path / "full", one) for one in OF_A_WHOLE_MODEL}
        with pytest.raises(AttuneError, match="a full fine-tune has no LoRA"):
            client.download_export(whole, tmp_path / "none", format="kohya")
        exports_are_listed_with_their_cards(deployment, lora)
        curl_gets_what_the_client_gets(deployment, lora, found["single_file"])
        same_weights_whole_and_single(found["merged"], found["single_file"])
        same_weights_whole_and_single(of_whole["merged"], of_whole["single_file"])
        the_lora_is_in_the_merged_folder(found["peft"], found["merged"])

        client.delete_checkpoint(lora, even_result=True)
        answer = httpx.get(f"http://127.0.0.1:{deployment.port}/v1/checkpoints/{lora}/download?format=merged")
        assert answer.status_code == 404


def trained(client: Client, spec: dict[str, Any]) -> str:
    job = client.wait_for_job(client.create_job(spec).id, timeout_seconds=120)
    assert job.status == "succeeded", client.logs(job.id)
    return client.result_checkpoint(job.id)


def downloaded(client: Client, checkpoint_id: str, folder: Path, format: ExportFormat) -> Path:
    name = f"{format}.safetensors" if format in ONE_FILE else format
    return client.download_export(checkpoint_id, folder / name, format=format)


def exports_are_listed_with_their_cards(deployment: Deployment, checkpoint_id: str) -> None:
    url = f"http://127.0.0.1:{deployment.port}/v1/checkpoints/{checkpoint_id}/exports"
    listed = httpx.get(url).json()["data"]
    assert sorted(one["format"] for one in listed) == sorted(OF_A_LORA)
    for one in listed:
        assert (one["status"], one["percent"]) == ("ready", 100)
        card = httpx.get(f"{url}/{one['format']}/files/README.md", follow_redirects=True).text
        assert "pairs.parquet" in card
        assert "| `brightness` |" in card
        assert str(ASSETS) not in card, "no path of the operator's"


def curl_gets_what_the_client_gets(deployment: Deployment, checkpoint_id: str, saved: Path) -> None:
    url = f"http://127.0.0.1:{deployment.port}/v1/checkpoints/{checkpoint_id}/download?format=single_file"
    answer = httpx.get(url, follow_redirects=True)
    assert answer.content == saved.read_bytes()


def same_weights_whole_and_single(merged: Path, single: Path) -> None:
    """diffusers reads the same model from the folder and from the single file."""
    import torch
    from diffusers import StableDiffusionPipeline

    folder = StableDiffusionPipeline.from_pretrained(merged, local_files_only=True)
    file = StableDiffusionPipeline.from_single_file(str(single), config=str(merged), local_files_only=True)
    for part in ("unet", "vae", "text_encoder"):
        first, second = (getattr(one, part).state_dict() for one in (folder, file))
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first), part


def the_lora_is_in_the_merged_folder(peft: Path, merged: Path) -> None:
    """W + B A alpha / rank, layer by layer."""
    adapter = load_file(peft / "unet" / "adapter_model.safetensors")
    config = json.loads((peft / "unet" / "adapter_config.json").read_text())
    name = "diffusion_pytorch_model.safetensors"
    before, after = load_file(ASSETS / "model" / "unet" / name), load_file(merged / "unet" / name)
    changed = {key for key in before if (before[key] != after[key]).any()}
    for key in changed:
        module = f"base_model.model.{key.removesuffix('.weight')}"
        update = adapter[f"{module}.lora_B.weight"] @ adapter[f"{module}.lora_A.weight"]
        update = update * config["lora_alpha"] / config["r"]
        assert abs(after[key] - before[key] - update).max() < 1e-6
    assert len(changed) == len(adapter) // 2
