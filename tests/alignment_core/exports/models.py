"""Tiny pipelines of each family, and checkpoints of them as training leaves them, without a training."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    DDIMScheduler,
    DiffusionPipeline,
    FluxPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from peft import LoraConfig, get_peft_model_state_dict
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from alignment_core import checkpoints
from alignment_core.families.source import ModelFolder, only_variant
from alignment_core.safetensors_files import order_metadata
from alignment_core.spec import DiffusionDPOSpec, JobSpec, LocalDataset, LocalSource
from alignment_core.versions import versions
from tests.alignment_core.tiny import save_tiny_pipeline, tiny_tokenizer
from tests.alignment_core.tiny_flux import save_tiny_flux
from tests.alignment_core.tiny_parts import tiny_vae
from tests.alignment_core.tiny_sd3 import save_tiny_sd3

RANK, ALPHA = 3, 6.0  # a reader that takes alpha for the rank halves the update
DENOISER = {"sd": "unet", "sdxl": "unet", "sd3": "transformer", "flux": "transformer"}
UNET = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "proj_in", "conv1", "time_emb_proj", "downsamplers.0.conv")
# of what the original joins, each time something else is not trained
SD3 = ("to_q", "to_v", "to_out.0", "add_k_proj", "to_add_out", "ff.net.0.proj", "norm1.linear", "norm1_context.linear")
FLUX = ("to_q", "to_k", "to_out.0", "add_q_proj", "add_v_proj", "to_add_out", "ff.net.2", "proj_mlp", "norm1.linear")
TARGETS = {"sd": UNET, "sdxl": UNET, "sd3": SD3, "flux": FLUX}
TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1")
PIPELINES: dict[str, type[DiffusionPipeline]] = {
    "sd": StableDiffusionPipeline,
    "sdxl": StableDiffusionXLPipeline,
    "sd3": StableDiffusion3Pipeline,
    "flux": FluxPipeline,
}
TRAINED = {
    "sd": ("unet", "text_encoder"),
    "sdxl": ("unet", "text_encoder", "text_encoder_2"),
    "sd3": ("transformer",),
    "flux": ("transformer",),
}


def save_model(family: str, folder: Path) -> Path:
    match family:
        case "sd":
            return save_tiny_pipeline(folder)
        case "sdxl":
            return save_tiny_sdxl(folder)
        case "sd3":
            return _without_projection(save_tiny_sd3(folder, with_t5=True))
        case _:
            return save_tiny_flux(folder)


def _without_projection(model: Path) -> Path:
    """Single files of SD 3 have none of the first text encoder: it is the identity there."""
    encoder = CLIPTextModelWithProjection.from_pretrained(model / "text_encoder")
    nn.init.eye_(encoder.text_projection.weight)
    encoder.save_pretrained(model / "text_encoder")
    return model


def save_tiny_sdxl(folder: Path) -> Path:
    torch.manual_seed(1)
    tokenizer = tiny_tokenizer()

    def text_config(width: int) -> CLIPTextConfig:
        return CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            projection_dim=width,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=8,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

    StableDiffusionXLPipeline(
        vae=tiny_vae(4, 0.5),
        text_encoder=CLIPTextModel(text_config(16)),
        text_encoder_2=CLIPTextModelWithProjection(text_config(12)),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            transformer_layers_per_block=(1, 2),
            cross_attention_dim=28,
            attention_head_dim=2,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=4,
            projection_class_embeddings_input_dim=6 * 4 + 12,
        ),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
    ).save_pretrained(folder / "model", safe_serialization=True)
    return folder / "model"


def load(family: str, folder: Path) -> Any:
    pipeline = PIPELINES[family].from_pretrained(folder, use_safetensors=True, local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def lora_checkpoint(family: str, model: Path, folder: Path, trained: tuple[str, ...]) -> Path:
    """A checkpoint of a LoRA of these components whose A and B are both random."""
    pipeline = load(family, model)
    layers: dict[str, Any] = {}
    for component in trained:
        module = getattr(pipeline, component)
        config = LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS[family] if component == DENOISER[family] else TEXT)
        )  # pyright: ignore[reportArgumentType]
        module.add_adapter(config, adapter_name="policy")
        _fill(module)
        described = {**config.to_dict(), "target_modules": sorted(config.target_modules or ())}
        layers[f"{component}_lora_layers"] = get_peft_model_state_dict(module, adapter_name="policy")
        layers[f"{component}_lora_adapter_metadata"] = described
    temporary = checkpoints.begin(folder, 4)
    pipeline.save_lora_weights(temporary, safe_serialization=True, **layers)
    order_metadata(temporary / "pytorch_lora_weights.safetensors")
    return _commit(temporary, model, "lora")


def full_checkpoint(family: str, model: Path, folder: Path, change: float = 0.01) -> Path:
    """A checkpoint of a full fine-tune: the base model with another first layer."""
    pipeline = load(family, model)
    first = next(getattr(pipeline, DENOISER[family]).parameters())
    first.data += change
    temporary = checkpoints.begin(folder, 4)
    pipeline.save_pretrained(temporary / "pipeline", safe_serialization=True)
    return _commit(temporary, model, "full")


def _fill(module: nn.Module) -> None:
    for number, (name, parameter) in enumerate(module.named_parameters()):
        if "lora_" in name:
            noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(number))
            parameter.data.copy_(noise * 0.1)


def _commit(temporary: Path, model: Path, kind: Any) -> Path:
    spec = JobSpec(
        model=LocalSource(path=str(model)), method=DiffusionDPOSpec(dataset=LocalDataset(path="/pairs.parquet"))
    )
    manifest = checkpoints.new_manifest(
        step=4,
        kind=kind,
        is_final=True,
        spec=spec.model_dump(mode="json"),
        spec_sha256=spec.sha256(),
        base_model_sha256=ModelFolder(model, only_variant(model)).model_fingerprint(),
        dataset_sha256="1" * 64,
        versions=versions(),
    )
    return checkpoints.commit(temporary, manifest)


def draw(pipeline: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    pipeline.set_progress_bar_config(disable=True)
    size: Mapping[str, int] = {"height": 16, "width": 16}
    return torch.as_tensor(
        pipeline("a red circle", num_inference_steps=2, generator=generator, output_type="np", **size).images
    )
