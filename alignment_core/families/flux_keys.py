"""FLUX.1: what other tools call its weights.

The transformer has the names of https://github.com/black-forest-labs/flux/blob/main/src/flux/model.py in kohya's files
(https://github.com/kohya-ss/sd-scripts/blob/main/networks/lora_flux.py) and in single files; around it lies what ComfyUI
reads as a checkpoint, the VAE under `vae.` and the text encoders, under transformers' names, under `text_encoders.`.
"""

from collections.abc import Mapping

from torch import Tensor

from alignment_core.families.clip_keys import text_module, transformers_clip
from alignment_core.families.keys import ComponentConfig, FamilyKeys, LoraLayer, LoraLayers, OriginalLayer
from alignment_core.families.original_layers import Block, joined_lora, layer_of, original_weights
from alignment_core.families.t5_keys import transformers_t5
from alignment_core.families.unet_keys import PREFIX
from alignment_core.families.vae_keys import original_vae

CLIP, T5 = "text_encoders.clip_l.transformer.", "text_encoders.t5xxl.transformer."
_DOUBLE = {
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "img_attn.proj": ("attn.to_out.0",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "img_mod.lin": ("norm1.linear",),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "txt_attn.proj": ("attn.to_add_out",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
    "txt_mod.lin": ("norm1_context.linear",),
}
_SINGLE = {
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "linear2": ("proj_out",),
    "modulation.lin": ("norm.linear",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
}
_BLOCKS = {
    "transformer_blocks": Block("double_blocks", _DOUBLE),
    "single_transformer_blocks": Block("single_blocks", _SINGLE),
}
_OUTSIDE = {
    "x_embedder": "img_in",
    "context_embedder": "txt_in",
    "time_text_embed.timestep_embedder.linear_1": "time_in.in_layer",
    "time_text_embed.timestep_embedder.linear_2": "time_in.out_layer",
    "time_text_embed.text_embedder.linear_1": "vector_in.in_layer",
    "time_text_embed.text_embedder.linear_2": "vector_in.out_layer",
    "time_text_embed.guidance_embedder.linear_1": "guidance_in.in_layer",
    "time_text_embed.guidance_embedder.linear_2": "guidance_in.out_layer",
    "proj_out": "final_layer.linear",
}
_LAST_NORM = "norm_out.linear"
_KOHYA_CLIP, _KOHYA_T5 = "lora_te1_", "lora_te3_"
MLP_RATIO = 4


def original_layer(module: str, _config: ComponentConfig) -> OriginalLayer:
    if module == _LAST_NORM:
        return OriginalLayer("final_layer.adaLN_modulation.1", (module,), is_swapped=True)
    return layer_of(module, _BLOCKS, _OUTSIDE)


def to_kohya(component: str, layers: LoraLayers, config: ComponentConfig) -> dict[str, LoraLayer]:
    match component:
        case "transformer":
            named, prefix = joined_lora(layers, config, original_layer, _rows), "lora_unet_"
        case "text_encoder":
            named, prefix = {text_module(module): one for module, one in layers.items()}, _KOHYA_CLIP
        case "text_encoder_2":
            named, prefix = layers, _KOHYA_T5
        case _:
            raise AssertionError(f"no LoRA of FLUX changes its {component}")
    return {prefix + module.replace(".", "_"): one for module, one in named.items()}


def to_original(component: str, weights: Mapping[str, Tensor], config: ComponentConfig) -> dict[str, Tensor]:
    match component:
        case "transformer":
            return {
                PREFIX + _of_norms(key): one for key, one in original_weights(weights, config, original_layer).items()
            }
        case "vae":
            return original_vae(weights, config, "vae.")
        case "text_encoder":
            return transformers_clip(weights, CLIP)
        case "text_encoder_2":
            return transformers_t5(weights, T5)
        case _:
            raise AssertionError(f"a single file of FLUX has no {component}")


def _of_norms(key: str) -> str:
    return key.removesuffix("weight") + "scale" if key.endswith("_norm.weight") else key


def _rows(module: str, config: ComponentConfig) -> int:
    width = config["num_attention_heads"] * config["attention_head_dim"]
    return MLP_RATIO * width if module.endswith("proj_mlp") else width


FLUX = FamilyKeys(
    family="flux",
    components=("transformer", "vae", "text_encoder", "text_encoder_2"),
    to_kohya=to_kohya,
    to_original=to_original,
    architecture=lambda config: "flux-1-dev" if config.get("guidance_embeds") else "flux-1-schnell",
    base_version=lambda _: "flux1",
    joined=original_layer,
    implementation="https://github.com/black-forest-labs/flux",
)
