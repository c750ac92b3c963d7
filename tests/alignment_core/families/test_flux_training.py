"""FLUX.1 is trained in one forward whatever the guidance."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline
from torch import Tensor

from alignment_core import align
from alignment_core.actors.actors import Actors
from alignment_core.checkpoints import latest
from alignment_core.errors import ModelError
from alignment_core.events import RunCompleted
from alignment_core.rollouts.setup import RolloutSetup
from tests.alignment_core.families.by_hand import normal
from tests.alignment_core.load.test_combinations import Folders, load, spec_of
from tests.alignment_core.tiny import save_pairs, tiny_spec
from tests.alignment_core.tiny_flux import T5_TOKENS, save_tiny_flux

torch.set_num_threads(1)

KINDS = ("dev", "schnell")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {kind: save_tiny_flux(tmp_path_factory.mktemp("flux"), is_dev=kind == "dev") for kind in KINDS}


@pytest.fixture(scope="module")
def folders(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Folders]:
    pairs = save_pairs(tmp_path_factory.mktemp("pairs") / "pairs.parquet")
    return {kind: Folders(models[kind], pairs, tmp_path_factory.mktemp("cache")) for kind in KINDS}


# --- guidance --------------------------------------------------------------------------------------------------------


@contextmanager
def forwards(actors: Actors) -> Iterator[list[dict[str, Any]]]:
    """What the network is given, forward by forward."""
    seen: list[dict[str, Any]] = []
    hook = actors.denoiser.register_forward_pre_hook(lambda _, __, given: seen.append(given), with_kwargs=True)
    yield seen
    hook.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_a_guided_prediction_is_one_forward_of_one_prompt(kind: str, folders: dict[str, Folders]) -> None:
    run = load(spec_of(folders[kind], "d3po", "frozen", "uniform"), folders[kind])
    assert spec_of(folders[kind], "d3po", "frozen", "uniform").method.guidance_scale == 2.0  # pyright: ignore
    setup: RolloutSetup = run.method.setup  # pyright: ignore[reportAttributeAccessIssue]
    batch = setup.rollout_batch(run.actors, 0, 3)
    x, at = batch.start([0, 1, 2]), torch.zeros(3, dtype=torch.long)
    with forwards(run.actors) as seen, torch.no_grad():
        batch.policy([0, 1, 2])(x, setup.grid.time(at, x))
    assert [len(given["hidden_states"]) for given in seen] == [3]
    assert [None if given["guidance"] is None else given["guidance"].tolist() for given in seen] == (
        [[2.0] * 3] if kind == "dev" else [None]
    )


def test_methods_on_pairs_tell_the_network_the_guidance_of_training(folders: dict[str, Folders]) -> None:
    spec = spec_of(folders["dev"], "diffusion_dpo", "frozen", "uniform")
    for told in (3.5, 1.0):
        training = spec.training.model_copy(update={"embedded_guidance": told})
        run = load(spec.model_copy(update={"training": training}), folders["dev"])
        text = run.family.encode_prompts(["a red circle"])
        with forwards(run.actors) as seen:
            run.actors.predict_policy(torch.zeros(1, 16, 8, 8), torch.tensor([500.0]), text)
            run.actors.predict_reference(torch.zeros(1, 16, 8, 8), torch.tensor([500.0]), text)
        assert [given["guidance"].tolist() for given in seen] == [[told]] * 2
        assert [given["timestep"].tolist() for given in seen] == [[0.5]] * 2


def test_a_guidance_that_no_network_would_hear_is_refused(tiny_model: Path, folders: dict[str, Folders]) -> None:
    elsewhere = Folders(tiny_model, folders["dev"].pairs, folders["dev"].cache)
    spec = spec_of(elsewhere, "diffusion_dpo", "frozen", "uniform")
    training = spec.training.model_copy(update={"embedded_guidance": 1.0})
    with pytest.raises(ModelError, match=r"training\.embedded_guidance is for models that are told their guidance"):
        load(spec.model_copy(update={"training": training}), elsewhere)


# --- whole runs ------------------------------------------------------------------------------------------------------


def save_lora(model: Path, folder: Path) -> Path:
    """A LoRA of the transformer and of the CLIP, as diffusers saves it."""
    pipeline = FluxPipeline.from_pretrained(model)
    layers: dict[str, dict[str, Tensor]] = {}
    for name in ("transformer", "text_encoder"):
        network = getattr(pipeline, name)
        targets = [one for one, _ in network.named_modules() if one.endswith(("to_q", "q_proj"))]
        layers[name] = {}
        for number, target in enumerate(targets):
            outputs, inputs = network.get_submodule(target).weight.shape
            layers[name][f"{target}.lora_A.weight"] = 0.3 * normal(2, inputs, seed=number).float()
            layers[name][f"{target}.lora_B.weight"] = 0.3 * normal(outputs, 2, seed=50 + number).float()
    FluxPipeline.save_lora_weights(folder, **{f"{name}_lora_layers": tensors for name, tensors in layers.items()})
    return folder / "pytorch_lora_weights.safetensors"


@pytest.mark.parametrize(
    ("model", "kind", "starts"),
    [("dev", "lora", False), ("schnell", "full", False), ("dev", "lora", True), ("dev", "full", True)],
)
def test_what_a_run_saves_opens_in_diffusers_and_draws_what_the_run_drew(
    model: str, kind: str, starts: bool, folders: dict[str, Folders], tmp_path: Path
) -> None:
    own = folders[model]
    start = {"lora": {"type": "local", "path": str(save_lora(own.model, tmp_path))}, "mode": "merge"}
    spec = tiny_spec(
        own.model,
        own.pairs,
        adapter={"type": "lora", "rank": 2, "alpha": 6.0} if kind == "lora" else {"type": "full"},
        training={"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "learning_rate": 1e-2},
        **({"start": start} if starts else {}),
    )
    events = list(align(spec, tmp_path / "work", cache_dir=own.cache))
    assert isinstance(events[-1], RunCompleted)
    saved = latest(tmp_path / "work" / "checkpoints")
    assert saved is not None
    pipeline = FluxPipeline.from_pretrained(saved / "pipeline" if kind == "full" else own.model)
    if kind == "lora":
        pipeline.load_lora_weights(saved, weight_name="pytorch_lora_weights.safetensors")
    pipeline.set_progress_bar_config(disable=True)
    noise = torch.stack([torch.randn(16, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6)])
    loaded = pipeline(
        ["a red circle"] * 2,
        height=16,
        width=16,
        latents=FluxPipeline._pack_latents(noise, 2, 16, 8, 8),
        num_inference_steps=2,
        guidance_scale=2.0,
        max_sequence_length=T5_TOKENS,
        output_type="pt",
    )
    run = load(spec.resolved("flux"), own)
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
