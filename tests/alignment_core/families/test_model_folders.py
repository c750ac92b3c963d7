"""Model folders as people have them: half precision, variants, broken ones. And what a run leaves behind of each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from alignment_core import AlignmentError, align
from alignment_core.checkpoints import folder_of
from alignment_core.errors import CheckpointError, ModelError
from alignment_core.events import StepCompleted, WarningRaised
from alignment_core.families.sd import StableDiffusion
from alignment_core.families.source import ModelFolder
from alignment_core.load.model import load_model
from alignment_core.spec import JobSpec, LocalSource
from tests.alignment_core.tiny import save_pairs, tiny_spec


def load(folder: Path) -> StableDiffusion:
    dtype = torch.float32
    return load_model(
        LocalSource(path=str(folder)), device=torch.device("cpu"), frozen_dtype=dtype, denoiser_dtype=dtype
    )


def run_two_steps(spec: JobSpec, workdir: Path, cache_dir: Path) -> None:
    for event in align(spec, workdir, cache_dir=cache_dir):
        if isinstance(event, StepCompleted) and event.step == 2:
            break


def warnings_of(spec: JobSpec, workdir: Path, cache_dir: Path) -> dict[str, str]:
    """What a run warns of before its first step."""
    found = {}
    for event in align(spec, workdir, cache_dir=cache_dir):
        if isinstance(event, WarningRaised):
            found[event.code] = event.message
        if isinstance(event, StepCompleted):
            break
    return found


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def test_a_full_fine_tune_in_half_precision_draws_in_plain_diffusers_with_its_own_scheduler(
    model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(model, use_safetensors=True)
    PNDMScheduler.from_config(pipeline.scheduler.config, skip_prk_steps=True).save_pretrained(model / "scheduler")
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, "scheduler": ["diffusers", "PNDMScheduler"]}))
    training = {"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1, "precision": "bf16"}
    spec = tiny_spec(model, tiny_pairs, adapter={"type": "full"}, training=training)
    list(align(spec, tmp_path / "work", cache_dir=cache_dir))
    folder = folder_of(tmp_path / "work" / "checkpoints", 2) / "pipeline"
    tuned = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    tuned.set_progress_bar_config(disable=True)
    assert tuned("a red circle", num_inference_steps=2, output_type="pt").images.isfinite().all()
    assert isinstance(tuned.scheduler, PNDMScheduler)
    for part in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert (folder / part).read_bytes() == (model / part).read_bytes()


@pytest.mark.filterwarnings("ignore:.*peft:UserWarning")
def test_lora_of_attention_and_other_layers_loads_whole(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    adapter = {"type": "lora", "rank": 2, "target_modules": ["to_q", "proj_in"]}
    spec = tiny_spec(tiny_model, tiny_pairs, adapter=adapter)
    list(align(spec, tmp_path, cache_dir=cache_dir))
    file = folder_of(tmp_path / "checkpoints", 6) / "pytorch_lora_weights.safetensors"
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_model, use_safetensors=True)
    pipeline.load_lora_weights(file.parent)
    loaded = {name: value for name, value in pipeline.unet.named_parameters() if "lora_" in name}
    saved = load_file(file)
    assert len(loaded) == len(saved)
    assert sum(value.abs().sum().item() for value in loaded.values()) == pytest.approx(
        sum(value.abs().sum().item() for value in saved.values()), rel=1e-5
    )


def test_weights_of_a_variant_are_the_only_ones_hashed(model: Path) -> None:
    before = ModelFolder(model, None).fingerprint(("vae",))
    shutil.copy(
        model / "vae/diffusion_pytorch_model.safetensors", model / "vae/diffusion_pytorch_model.fp16.safetensors"
    )
    assert ModelFolder(model, None).fingerprint(("vae",)) == before
    assert ModelFolder(model, "fp16").fingerprint(("vae",)) != before


def drop_a_weight(component: str, file: str) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        path = model / component / file
        weights = load_file(path)
        weights.pop(sorted(weights)[0])
        save_file(weights, path, metadata={"format": "pt"})

    return damage


def rewrite_index(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(model: Path) -> None:
        path = model / "model_index.json"
        path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return damage


def rename_weights(model: Path, **variants: str) -> None:
    for component, variant in variants.items():
        for path in (model / component).glob("*.safetensors"):
            path.rename(path.with_name(f"{path.stem}.{variant}.safetensors"))


def two_variants(model: Path) -> None:
    rename_weights(model, unet="fp16", vae="bf16")


def only_pickles(model: Path) -> None:
    (model / "unet" / "diffusion_pytorch_model.safetensors").rename(model / "unet" / "diffusion_pytorch_model.bin")


@pytest.mark.parametrize("components", [("unet", "vae", "text_encoder"), ("unet",)])
def test_a_local_folder_with_one_variant_alone_is_read_in_it_and_the_run_says_so(
    components: tuple[str, ...], model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    as_it_was = load(model)
    rename_weights(model, **dict.fromkeys(components, "fp16"))
    family = load(model)
    assert family.folder.variant == "fp16"
    for mine, theirs in zip(family.denoiser.parameters(), as_it_was.denoiser.parameters(), strict=True):
        assert mine.equal(theirs)
    spec = tiny_spec(model, tiny_pairs)
    assert (
        warnings_of(spec, tmp_path / "run", cache_dir)["weights_variant"]
        == "the model's folder has weights in the variant fp16 alone; they are what is trained on"
    )


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            drop_a_weight("text_encoder", "model.safetensors"),
            r"text_encoder: the weight '.*' of the model .* is missing",
        ),
        (
            drop_a_weight("unet", "diffusion_pytorch_model.safetensors"),
            r"unet: the weight 'conv_in\.bias' of .* missing",
        ),
        (rewrite_index(lambda index: [index]), "expected a JSON object"),
        (rewrite_index(lambda index: {**index, "unet": []}), "unet is \\[\\]"),
        (rewrite_index(lambda index: {**index, "unet": ["my_code", "Net"]}), "expected a class of diffusers"),
        (
            rewrite_index(lambda index: {**index, "_class_name": "LTXPipeline"}),
            "is 'LTXPipeline', which is not trained",
        ),
        (two_variants, "no variant in their names"),
        (only_pickles, "pickled weights are not read"),
    ],
)
def test_a_broken_model_folder_is_the_users_to_mend(damage: Callable[[Path], None], message: str, model: Path) -> None:
    damage(model)
    with pytest.raises(ModelError, match=message):
        load(model)


def test_a_tokenizer_without_a_length_has_the_text_encoders(model: Path) -> None:
    path = model / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    config.pop("model_max_length")
    path.write_text(json.dumps(config))
    assert load(model).encode_prompts(["a red circle"])["prompt_embeds"].shape[1] == 8


def test_a_run_is_not_resumed_on_other_weights_or_other_data(model: Path, cache_dir: Path, tmp_path: Path) -> None:
    pairs = save_pairs(tmp_path / "pairs.parquet")
    spec = tiny_spec(model, pairs)
    run_two_steps(spec, tmp_path / "work", cache_dir)
    save_pairs(pairs, num_pairs=20)
    with pytest.raises(CheckpointError, match="other model weights or other data"):
        list(align(spec, tmp_path / "work", cache_dir=cache_dir))


def test_a_malformed_manifest_is_passed_over(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    spec = tiny_spec(tiny_model, tiny_pairs, checkpoints={"every": 1})
    run_two_steps(spec, tmp_path, cache_dir)
    (folder_of(tmp_path / "checkpoints", 2) / "manifest.json").write_text("{")
    first = next(align(spec, tmp_path, cache_dir=cache_dir))
    assert first.model_dump()["resumed_from_step"] == 1


def test_more_time_may_be_given_to_the_same_run(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    def spec(seconds: int) -> JobSpec:
        return tiny_spec(tiny_model, tiny_pairs, resources={"device": "cpu", "max_run_seconds": seconds})

    run_two_steps(spec(100), tmp_path, cache_dir)
    first = next(align(spec(200), tmp_path, cache_dir=cache_dir))
    assert first.model_dump()["resumed_from_step"] == 2


def test_v_rescale_is_refused_for_an_epsilon_model(tiny_model: Path, tiny_pairs: Path, tmp_path: Path) -> None:
    dataset = {"type": "local", "path": str(tiny_pairs)}
    spec = tiny_spec(tiny_model, tiny_pairs, method={"type": "diffusion_dpo", "dataset": dataset, "v_rescale": "abar"})
    with pytest.raises(AlignmentError, match=r"method\.v_rescale is for v-prediction models"):
        list(align(spec, tmp_path, cache_dir=tmp_path / "cache"))


def test_evaluation_prompts_that_are_trained_on_are_warned_about(
    tiny_model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    events = list(align(tiny_spec(tiny_model, tiny_pairs), tmp_path, cache_dir=cache_dir))
    warnings = {event.code: event.message for event in events if isinstance(event, WarningRaised)}
    assert "of 2 evaluation prompts are trained on too" in warnings["evaluation_prompts_seen"]


def test_prompts_that_are_cut_and_images_that_are_far_too_small_are_warned_about(
    tiny_model: Path, cache_dir: Path, tmp_path: Path
) -> None:
    num_read = load(tiny_model).max_tokens - 2
    pairs = save_pairs(tmp_path / "pairs.parquet", 8, prompt=lambda index: "a " * (num_read + index % 2))
    dataset = {"type": "local", "path": str(pairs)}
    method = {"type": "diffusion_dpo", "dataset": dataset, "transform": {"resolution": 128}}
    found = warnings_of(tiny_spec(tiny_model, pairs, method=method), tmp_path / "run", cache_dir)
    assert found["prompts_cut"].startswith(f"4 of 8 prompts of the rows are longer than the {num_read} tokens")
    assert found["images_below_resolution"].startswith("100% of the images (16) have a shorter side below 64 pixels")
