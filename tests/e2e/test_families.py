"""SDXL, Stable Diffusion 3 and FLUX.1 over HTTP, from POST to every form that there is of their LoRAs.

One of them on both sets of parts: what is stored are files, whichever family they are of.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alignment_core.families.merge import update_of
from alignment_core.spec.exports import EXPORTS
from alignment_core.spec.families import FAMILIES as TRAINED
from alignment_core.spec.families import FamilyName
from attune.errors import AttuneError
from tests.alignment_core.exports.flux_readers import flux_readers_of_width
from tests.alignment_core.exports.test_export import FLUX_WIDTH
from tests.alignment_core.families.loras import random_layers, save_diffusers
from tests.alignment_core.families.tiny_models import TINY
from tests.alignment_core.tiny import save_pairs
from tests.e2e.conftest import Deployment, embedded, real_servers
from tests.e2e.test_exports import downloaded, trained

FAMILIES: tuple[FamilyName, ...] = ("sdxl", "sd3", "flux")
ON_PARTS = [*((family, "embedded") for family in FAMILIES), ("flux", "real servers")]
LORA_FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> FamilyName:
    return request.param


@pytest.fixture(params=["embedded", "real servers"])
def deployment(request: pytest.FixtureRequest, family: FamilyName, tmp_path: Path) -> Iterator[Deployment]:
    """With a tiny model of the family in the catalog, and no other: a worker reads each in a process."""
    catalog = tmp_path / "catalog.json"
    catalog.write_text(json.dumps({"models": {family: entry_of(family, tmp_path)}}))
    with embedded() if request.param == "embedded" else real_servers(request) as settings:
        deployed = Deployment(tmp_path, {**settings, "CATALOG_PATH": str(catalog)})
        try:
            deployed.start_api()
            yield deployed
        finally:
            deployed.stop()


def entry_of(family: FamilyName, folder: Path) -> dict[str, Any]:
    path = TINY[family](folder / family)
    return {"type": "local", "path": str(path), "family": family, "resolution": 16, "description": "tiny"}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:.*peft:UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("family", "deployment"), ON_PARTS, indirect=True)
def test_a_lora_of_every_family_is_trained_and_had_in_every_form(
    family: FamilyName, deployment: Deployment, tmp_path: Path
) -> None:
    deployment.start_worker("only")
    pairs, saved = save_pairs(tmp_path / "pairs.parquet"), tmp_path / "saved"
    with deployment.client as client:
        dataset = client.wait_for_dataset(client.upload_dataset(pairs).id, timeout_seconds=60).id
        validated = client.validate(spec_of(family, dataset)).resolved_spec or {}
        assert validated["adapter"]["target_modules"] == list(TRAINED[family].lora_targets)
        checkpoint = trained(client, spec_of(family, dataset))
        found = {one: downloaded(client, checkpoint, saved, one) for one in EXPORTS[family]["lora"]}
    the_lora_and_the_merged_model_draw_the_same(tmp_path / family / "model", found["diffusers"], found["merged"])


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore:.*peft:UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("deployment", ["embedded"], indirect=True)
@pytest.mark.parametrize("family", ["sdxl", "sd3"], indirect=True)
def test_a_lora_that_was_uploaded_is_merged_and_in_all_that_is_downloaded(
    family: FamilyName, deployment: Deployment, tmp_path: Path
) -> None:
    deployment.start_worker("only")
    pairs, saved, denoiser = save_pairs(tmp_path / "pairs.parquet"), tmp_path / "saved", TRAINED[family].denoiser
    base = getattr(pipeline_of(tmp_path / family / "model"), denoiser)
    layers = random_layers(base, TRAINED[family].lora_targets, rank=3, alpha=3.0)
    style = save_diffusers({denoiser: layers}, tmp_path / "style.safetensors")
    with deployment.client as client:
        dataset = client.wait_for_dataset(client.upload_dataset(pairs).id, timeout_seconds=60).id
        weights = client.wait_for_weights(client.upload_weights(style).id, 60).id
        checkpoint = trained(client, {**spec_of(family, dataset), "start": {"lora": weights, "mode": "merge"}})
        lora, merged = (downloaded(client, checkpoint, saved, one) for one in ("diffusers", "merged"))
    the_lora_and_the_merged_model_draw_the_same(tmp_path / family / "model", lora, merged)
    before, after = (one.state_dict() for one in (base, getattr(pipeline_of(merged), denoiser)))
    for module, layer in layers.items():
        trained_on_top = after[f"{module}.weight"] - before[f"{module}.weight"] - update_of(layer)
        assert 0 < trained_on_top.norm() < 0.5 * update_of(layer).norm(), module


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("deployment", ["embedded"], indirect=True)
def test_a_full_fine_tune_is_had_in_every_form(family: FamilyName, deployment: Deployment, tmp_path: Path) -> None:
    deployment.start_worker("only")
    pairs, saved, denoiser = save_pairs(tmp_path / "pairs.parquet"), tmp_path / "saved", TRAINED[family].denoiser
    with deployment.client as client:
        dataset = client.wait_for_dataset(client.upload_dataset(pairs).id, timeout_seconds=60).id
        checkpoint = trained(client, {**spec_of(family, dataset), "adapter": {"type": "full"}})
        found = {one: downloaded(client, checkpoint, saved, one) for one in EXPORTS[family]["full"]}
        with pytest.raises(AttuneError, match="a full fine-tune has no LoRA"):
            client.download_export(checkpoint, tmp_path / "none", format="kohya")
    whole = pipeline_of(found["merged"])
    with flux_readers_of_width(FLUX_WIDTH):
        single = type(whole).from_single_file(
            str(found["single_file"]), config=str(found["merged"]), **absent_in(found["merged"])
        )
    alone = type(getattr(whole, denoiser)).from_pretrained(found["diffusers"] / denoiser)
    base = pipeline_of(tmp_path / family / "model")
    assert not same_weights(getattr(whole, denoiser), getattr(base, denoiser)), "it was trained"
    for other in (getattr(single, denoiser), alone):
        assert same_weights(getattr(whole, denoiser), other)
    assert same_weights(whole.vae, single.vae)


def same_weights(one: Any, other: Any) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(bool((first[name] == second[name]).all()) for name in first)


def spec_of(family: FamilyName, dataset_id: str) -> dict[str, Any]:
    return {
        "model": {"type": "catalog", "name": family},
        "method": {"type": "diffusion_dpo", "dataset": {"type": "stored", "id": dataset_id}, "beta": 500},
        "adapter": {"type": "lora", "rank": 2},
        "training": {"steps": 2, "batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 1e-2},
        "evaluation": {
            "prompts": ["a red circle"],
            "num_inference_steps": 2,
            "rewards": [{"type": "brightness"}],
        },
    }


def the_lora_and_the_merged_model_draw_the_same(model: Path, lora: Path, merged: Path) -> None:
    import torch

    with_lora = pipeline_of(model)
    with_lora.load_lora_weights(lora, weight_name=LORA_FILE)
    assert torch.allclose(drawn(with_lora), drawn(pipeline_of(merged)), atol=1e-4)
    assert not torch.allclose(drawn(with_lora), drawn(pipeline_of(model)), atol=1e-3)


def pipeline_of(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder, local_files_only=True, **absent_in(folder))
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def absent_in(folder: Path) -> dict[str, None]:
    index = json.loads((folder / "model_index.json").read_text())
    return {name: None for name, entry in index.items() if entry == [None, None]}


def drawn(pipeline: Any) -> Any:
    import torch

    generator, size = torch.Generator().manual_seed(0), {"height": 16, "width": 16}
    return pipeline("a red circle", num_inference_steps=2, generator=generator, output_type="pt", **size).images
