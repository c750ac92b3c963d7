"""Stable Diffusion 3 is trained by methods and plug-ins, and what is saved opens in diffusers."""

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from alignment_core import align
from alignment_core.checkpoints import latest
from alignment_core.errors import ModelError
from alignment_core.events import RunCompleted
from tests.alignment_core.families.by_hand import normal
from tests.alignment_core.load.test_combinations import (
    Folders,
    assert_it_trains,
    load,
    spec_of,
)
from tests.alignment_core.tiny import save_pairs, tiny_spec
from tests.alignment_core.tiny_sd3 import save_tiny_sd3

torch.set_num_threads(1)

# One method on pairs and one that draws; the matrix of every family, which is slow, has all of them.
SOME = [("mapo", "frozen", "paper"), ("ddpo", "frozen", "adaptive")]


@pytest.fixture(scope="module")
def sd3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_sd3(tmp_path_factory.mktemp("sd3"))


@pytest.fixture(scope="module")
def folders(sd3: Path, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    pairs = save_pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet")
    return Folders(sd3, pairs, tmp_path_factory.mktemp("cache"))


@pytest.mark.parametrize(("method", "reference", "timesteps"), SOME)
def test_methods_and_plug_ins_train_it(method: str, reference: str, timesteps: str, folders: Folders) -> None:
    assert_it_trains(load(spec_of(folders, method, reference, timesteps), folders), method)


def test_a_beta_of_flow_matching_is_refused_where_there_is_none(tiny_model: Path, folders: Folders) -> None:
    of_flow = spec_of(folders, "diffusion_dpo", "frozen", "uniform")
    method = of_flow.method.model_copy(update={"flow_beta": "one_minus_s_squared"})
    spec = of_flow.model_copy(update={"method": method})
    assert load(spec, folders).family.path.prediction_type == "flow"
    elsewhere = Folders(tiny_model, folders.pairs, folders.cache)
    other = spec_of(elsewhere, "diffusion_dpo", "frozen", "uniform")
    with pytest.raises(ModelError, match=r"method\.flow_beta is for flow matching, and this model predicts epsilon"):
        load(other.model_copy(update={"method": method}), elsewhere)


# --- whole runs ------------------------------------------------------------------------------------------------------


def save_lora(model: Path, folder: Path) -> Path:
    """A LoRA of the transformer and of a text encoder, as diffusers saves it."""
    pipeline = StableDiffusion3Pipeline.from_pretrained(model, text_encoder_3=None, tokenizer_3=None)
    layers: dict[str, dict[str, Tensor]] = {}
    for name in ("transformer", "text_encoder_2"):
        network = getattr(pipeline, name)
        targets = [one for one, layer in network.named_modules() if one.endswith(("to_q", "q_proj"))]
        layers[name] = {}
        for number, target in enumerate(targets):
            outputs, inputs = network.get_submodule(target).weight.shape
            layers[name][f"{target}.lora_A.weight"] = 0.3 * normal(2, inputs, seed=number).float()
            layers[name][f"{target}.lora_B.weight"] = 0.3 * normal(outputs, 2, seed=50 + number).float()
    StableDiffusion3Pipeline.save_lora_weights(
        folder, **{f"{name}_lora_layers": tensors for name, tensors in layers.items()}
    )
    return folder / "pytorch_lora_weights.safetensors"


@pytest.mark.parametrize(("kind", "starts"), [("lora", False), ("full", False), ("lora", True), ("full", True)])
def test_what_a_run_saves_opens_in_diffusers_and_draws_what_the_run_drew(
    kind: str, starts: bool, folders: Folders, tmp_path: Path
) -> None:
    start = {"lora": {"type": "local", "path": str(save_lora(folders.model, tmp_path))}, "mode": "merge"}
    spec = tiny_spec(
        folders.model,
        folders.pairs,
        adapter={"type": "lora", "rank": 2, "alpha": 6.0} if kind == "lora" else {"type": "full"},
        training={"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-2},
        **({"start": start} if starts else {}),
    )
    events = list(align(spec, tmp_path / "work", cache_dir=folders.cache))
    assert isinstance(events[-1], RunCompleted)
    saved = latest(tmp_path / "work" / "checkpoints")
    assert saved is not None
    model = saved / "pipeline" if kind == "full" else folders.model
    pipeline = StableDiffusion3Pipeline.from_pretrained(model, text_encoder_3=None, tokenizer_3=None)
    if kind == "lora":
        pipeline.load_lora_weights(saved, weight_name="pytorch_lora_weights.safetensors")
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.stack([torch.randn(16, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)])
    loaded = pipeline(["a red circle"] * 2, latents=noise, num_inference_steps=2, guidance_scale=2.0, output_type="pt")
    run = load(spec.resolved("sd3"), folders)
    run.restore(saved)
    drawn = run.family.sample(
        run.actors.denoiser,
        ["a red circle"] * 2,
        [5, 6],
        num_inference_steps=2,
        guidance_scale=2.0,
        autocast=nullcontext,
    )
    assert torch.allclose(loaded.images, drawn, atol=2e-5)
