"""Parts of a model that do not fit are found when it is loaded, by the key of the config or the name of the weight."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from alignment_core import align
from alignment_core.errors import AlignmentError, ModelError
from alignment_core.families.sd import StableDiffusion
from alignment_core.families.sd_schedule import read_schedule
from alignment_core.families.source import ModelFolder
from alignment_core.load.model import load_model
from alignment_core.quiet import silence_progress_bars
from alignment_core.spec import LocalSource
from tests.alignment_core.tiny import tiny_spec

UNET, VAE, TEXT = "unet/config.json", "vae/config.json", "text_encoder/config.json"
SCHEDULER, INDEX = "scheduler/scheduler_config.json", "model_index.json"
UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
VAE_WEIGHTS = "vae/diffusion_pytorch_model.safetensors"
TEXT_WEIGHTS = "text_encoder/model.safetensors"
MISSING = object()


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(tiny_model, tmp_path / "model")


def load(folder: Path) -> StableDiffusion:
    dtype = torch.float32
    return load_model(
        LocalSource(path=str(folder)), device=torch.device("cpu"), frozen_dtype=dtype, denoiser_dtype=dtype
    )


def rewrite(folder: Path, file: str, **changes: object) -> None:
    """Change keys of a JSON file; `MISSING` takes one out."""
    values = json.loads((folder / file).read_text()) | changes
    kept = {key: value for key, value in values.items() if value is not MISSING}
    (folder / file).write_text(json.dumps(kept))


def change_weights(folder: Path, file: str, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / file)
    change(weights)
    save_file(weights, folder / file, metadata={"format": "pt"})


# --- configs against each other --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        (UNET, {"in_channels": 9}, r"unet/config\.json: in_channels is 9; expected 4, the latent_channels of .*vae"),
        (UNET, {"out_channels": 8}, r"out_channels is 8; expected 4"),
        (
            UNET,
            {"cross_attention_dim": 1024},
            r"cross_attention_dim is 1024; expected 16, the hidden_size of .*text_enc",
        ),
        (UNET, {"cross_attention_dim": [16, 8]}, r"cross_attention_dim is \[16, 8\]; expected 16"),
        (UNET, {"in_channels": MISSING}, r"unet/config\.json: in_channels is missing"),
        (UNET, {"sample_size": [60, 80]}, r"sample_size is \[60, 80\]; expected a square"),
        (UNET, {"sample_size": None}, r"sample_size is None; expected a whole number"),
        (UNET, {"sample_size": MISSING}, r"sample_size is missing"),
        (UNET, {"addition_embed_type": "text_time"}, r"addition_embed_type is 'text_time'; the U-Net wants an input"),
        (UNET, {"time_cond_proj_dim": 256}, r"time_cond_proj_dim is 256"),
        (UNET, {"num_class_embeds": 1000}, r"num_class_embeds is 1000"),
        (VAE, {"latent_channels": 16}, r"in_channels is 4; expected 16, the latent_channels"),
        (VAE, {"in_channels": 4}, r"vae/config\.json: in_channels is 4; expected 3, the colours"),
        (VAE, {"shift_factor": 0.1}, r"shift_factor is 0\.1"),
        (TEXT, {"hidden_size": 32}, r"cross_attention_dim is 16; expected 32"),
        (TEXT, {"vocab_size": 20}, r"vocab_size|token_embedding"),
        (INDEX, {"vae": ["diffusers", "AutoencoderTiny"]}, r"vae is 'AutoencoderTiny'; expected AutoencoderKL"),
        (INDEX, {"text_encoder": ["transformers", "T5EncoderModel"]}, r"expected CLIPTextModel"),
        (INDEX, {"tokenizer": MISSING}, r"tokenizer is missing"),
    ],
)
def test_parts_that_do_not_fit_are_told_by_the_key(
    file: str, changes: dict[str, Any], message: str, model: Path
) -> None:
    rewrite(model, file, **changes)
    with pytest.raises(ModelError, match=message) as refused:
        load(model)
    assert (refused.value.category, refused.value.retryable) == ("user", False)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(model: Path) -> None:
    rewrite(model, TEXT, vocab_size=20)
    name = "embeddings.token_embedding.weight"
    change_weights(model, TEXT_WEIGHTS, lambda weights: weights.update({name: weights[name][:20].clone()}))
    with pytest.raises(ModelError, match=r"vocab_size is 20, and the tokenizer's token .* has number"):
        load(model)


def test_parts_are_checked_before_any_data_is_read(model: Path, tmp_path: Path) -> None:
    rewrite(model, UNET, in_channels=9)
    spec = tiny_spec(model, tmp_path / "no such data.parquet")
    with pytest.raises(ModelError, match="in_channels is 9"):
        list(align(spec, tmp_path / "work", cache_dir=tmp_path / "cache"))
    assert not (tmp_path / "cache").exists()


def test_a_sample_size_of_two_equal_numbers_is_one_number(
    model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path
) -> None:
    rewrite(model, UNET, sample_size=[8, 8])
    assert load(model).resolution == 16
    training = {"steps": 1, "batch_size": 2, "gradient_accumulation_steps": 1}
    spec = tiny_spec(model, tiny_pairs, training=training)
    events = list(align(spec, tmp_path / "work", cache_dir=cache_dir))
    assert events[-1].type == "run_completed"


# --- weights ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", [UNET_WEIGHTS, VAE_WEIGHTS, TEXT_WEIGHTS])
def test_missing_and_unknown_weights_are_named(file: str, model: Path) -> None:
    weights = load_file(model / file)
    taken, *_, last = sorted(weights)
    change_weights(model, file, lambda weights: weights.update({"extra.weight": torch.ones(2)}))
    with pytest.raises(ModelError, match=r"the weight 'extra\.weight' is not part of the model"):
        load(model)
    change_weights(model, file, lambda weights: [weights.pop(key) for key in (taken, last)])
    with pytest.raises(ModelError, match=rf"the weight '{taken}' \(and 1 more\) of the model .* is missing"):
        load(model)


def test_a_weight_of_another_shape_is_named(model: Path) -> None:
    name = "embeddings.position_embedding.weight"
    change_weights(model, TEXT_WEIGHTS, lambda weights: weights.update({name: torch.ones(5, 16)}))
    with pytest.raises(ModelError, match=rf"the weight '{name}' has the shape \[5, 16\]"):
        load(model)


@pytest.mark.parametrize("file", [UNET_WEIGHTS, VAE_WEIGHTS, TEXT_WEIGHTS])
def test_a_file_that_was_cut_off_is_the_users_to_mend(file: str, model: Path) -> None:
    content = (model / file).read_bytes()
    (model / file).write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="could not be loaded") as refused:
        load(model)
    assert refused.value.category == "user"


def test_a_text_encoder_with_the_rest_of_clip_or_old_position_ids_loads_without_a_word(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = load(model).encode_prompts(["a red circle"])["prompt_embeds"]

    def as_of_old(weights: dict[str, torch.Tensor]) -> None:
        for key in list(weights):
            weights[f"text_model.{key}"] = weights.pop(key)
        weights["text_model.embeddings.position_ids"] = torch.arange(8)[None]
        weights["logit_scale"] = torch.ones(())
        weights["vision_model.embeddings.class_embedding"] = torch.ones(4)

    change_weights(model, TEXT_WEIGHTS, as_of_old)
    silence_progress_bars()  # as a run does
    capfd.readouterr()
    assert torch.equal(load(model).encode_prompts(["a red circle"])["prompt_embeds"], before)
    assert capfd.readouterr().err == ""


# --- the schedule ----------------------------------------------------------------------------------------------------


SD_1_5 = {  # as its folder has it, written by diffusers 0.6: older than several keys
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
    "clip_sample": False,
}


def schedule_of(folder: Path, config: dict[str, Any]) -> Any:
    (folder / SCHEDULER).write_text(json.dumps({k: value for k, value in config.items() if value is not MISSING}))
    return read_schedule(ModelFolder(folder, None))


def test_the_file_of_sd_1_5_means_what_it_meant(model: Path) -> None:
    scheduler = schedule_of(model, SD_1_5)
    expected = {"prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 1}
    assert expected.items() <= dict(scheduler.config).items()
    assert scheduler.alphas_cumprod[0].item() == pytest.approx(0.99915)
    assert scheduler.final_alpha_cumprod == scheduler.alphas_cumprod[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"_class_name": "FlowMatchEulerDiscreteScheduler"},
            r"FlowMatchEulerDiscreteScheduler.*flow matching has no betas",
        ),
        ({"_class_name": MISSING}, "_class_name is missing"),
        ({"beta_start": MISSING}, r"scheduler_config\.json: beta_start is missing"),
        ({"beta_end": MISSING}, "beta_end is missing"),
        ({"beta_schedule": MISSING}, "beta_schedule is missing"),
        ({"num_train_timesteps": MISSING}, "num_train_timesteps is missing"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule is 'sigmoid'; expected linear, scaled_linear"),
        ({"beta_start": "small"}, "no noise schedule"),
        ({"trained_betas": [0.1, 0.2]}, r"trained_betas: expected num_train_timesteps \(1000\) numbers"),
        ({"prediction_type": "sample"}, "prediction_type is 'sample'; expected epsilon or v_prediction"),
        ({"prediction_type": "flow_prediction"}, "prediction_type is 'flow_prediction'"),
        ({"timestep_spacing": "karras"}, "timestep_spacing is 'karras'; expected leading or trailing or linspace"),
        ({"steps_offset": -1}, "steps_offset is -1"),
        ({"clip_sample": True}, "clip_sample is True"),
        ({"thresholding": True}, "thresholding is True"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas is True"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is for v_prediction"),
    ],
)
def test_a_schedule_that_is_not_there_or_not_supported_is_told_by_its_key(
    changes: dict[str, Any], message: str, model: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        schedule_of(model, SD_1_5 | changes)


def zero_snr(model: Path) -> None:
    rewrite(
        model,
        SCHEDULER,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        set_alpha_to_one=True,
    )


def tailorpo(prompts: Sequence[str], num_steps: int) -> dict[str, Any]:
    return {
        "type": "tailorpo",
        "prompts": list(prompts),
        "rewards": [{"type": "brightness"}],
        "num_inference_steps": num_steps,
        "num_trained_steps": 2,
        "guidance_scale": 1.0,
    }


def test_rollouts_and_the_report_sample_a_zero_snr_model_at_the_same_timesteps(
    model: Path, tiny_pairs: Path, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ask the denoiser at 999, 799, ..., 199 and nowhere else."""
    zero_snr(model)
    asked: set[int] = set()
    predict = StableDiffusion.predict

    def watched(self: StableDiffusion, denoiser: Any, x_t: Any, timesteps: torch.Tensor, conditioning: Any) -> Any:
        asked.update(timesteps.tolist())
        return predict(self, denoiser, x_t, timesteps, conditioning)

    monkeypatch.setattr(StableDiffusion, "predict", watched)
    evaluation = {"prompts": ["a red circle"], "rewards": [{"type": "brightness"}], "num_inference_steps": 5}
    training = {"steps": 2, "batch_size": 2, "gradient_accumulation_steps": 1}
    method = tailorpo(["a blue square", "a green circle"], 5)
    spec = tiny_spec(model, tiny_pairs, method=method, training=training, evaluation=evaluation)
    num_steps = 0
    for event in align(spec, tmp_path / "work", cache_dir=cache_dir):
        if event.type == "step_completed":  # the report also measures drift, at any timestep
            assert asked <= {999, 799, 599, 399, 199}
            assert 999 in asked
            num_steps += 1
    assert num_steps == 2
    pipeline = load(model).pipeline(load(model).denoiser)
    pipeline.scheduler.set_timesteps(5)
    assert pipeline.scheduler.timesteps.tolist() == [999, 799, 599, 399, 199]


def test_the_report_samples_at_the_offset_that_the_file_has(model: Path) -> None:
    rewrite(model, SCHEDULER, steps_offset=0)
    family = load(model)
    pipeline = family.pipeline(family.denoiser)
    pipeline.scheduler.set_timesteps(20)
    assert pipeline.scheduler.timesteps.tolist() == family.path.sampling_timesteps(20) == list(range(950, -1, -50))


def test_sampling_steps_that_the_schedule_cannot_take_are_refused_before_training(model: Path, tmp_path: Path) -> None:
    zero_snr(model)
    evaluation = {"prompts": ["a red circle"], "rewards": [{"type": "brightness"}], "num_inference_steps": 61}
    spec = tiny_spec(model, tmp_path / "no such data.parquet", evaluation=evaluation)
    with pytest.raises(
        AlignmentError, match=r"evaluation\.num_inference_steps: 61 sampling steps of spacing 'trailing'"
    ):
        list(align(spec, tmp_path / "work", cache_dir=tmp_path / "cache"))
