"""Stable Diffusion 3: what other tools call its weights.

The transformer has the names of https://github.com/Stability-AI/sd3.5/blob/main/mmditx.py (`MMDiTX`) in kohya's files
(https://github.com/kohya-ss/sd-scripts/blob/main/networks/lora_sd3.py) and in single files, which hold the text encoders under
transformers' names, as Stability's `sd3_medium_incl_clips_t5xxlfp16.safetensors` does.
"""

from collections.abc import Mapping

from torch import Tensor

from alignment_core.families.clip_keys import text_module, transformers_clip
from alignment_core.families.keys import ComponentConfig, FamilyKeys, LoraLayer, LoraLayers, OriginalLayer
from alignment_core.families.original_layers import Block, joined_lora, layer_of, original_weights
from alignment_core.families.t5_keys import transformers_t5
from alignment_core.families.unet_keys import PREFIX
from alignment_core.families.vae_keys import original_vae

TEXT_ENCODERS = {
    "text_encoder": "text_encoders.clip_l.transformer.",
    "text_encoder_2": "text_encoders.clip_g.transformer.",
    "text_encoder_3": "text_encoders.t5xxl.transformer.",
}
KOHYA_PREFIXES = {"text_encoder": "lora_te1_", "text_encoder_2": "lora_te2_", "text_encoder_3": "lora_te3_"}
_T5 = "text_encoder_3"
_BLOCK = {
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "x_block.attn.ln_q": ("attn.norm_q",),
    "x_block.attn.ln_k": ("attn.norm_k",),
    "x_block.attn.proj": ("attn.to_out.0",),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block.attn2.ln_q": ("attn2.norm_q",),
    "x_block.attn2.ln_k": ("attn2.norm_k",),
    "x_block.attn2.proj": ("attn2.to_out.0",),
    "x_block.mlp.fc1": ("ff.net.0.proj",),
    "x_block.mlp.fc2": ("ff.net.2",),
    "x_block.adaLN_modulation.1": ("norm1.linear",),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "context_block.attn.ln_q": ("attn.norm_added_q",),
    "context_block.attn.ln_k": ("attn.norm_added_k",),
    "context_block.attn.proj": ("attn.to_add_out",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
    "context_block.mlp.fc2": ("ff_context.net.2",),
    "context_block.adaLN_modulation.1": ("norm1_context.linear",),
}
_BLOCKS = {"transformer_blocks": Block("joint_blocks", _BLOCK)}
_OUTSIDE = {
    "pos_embed.proj": "x_embedder.proj",
    "context_embedder": "context_embedder",
    "time_text_embed.timestep_embedder.linear_1": "t_embedder.mlp.0",
    "time_text_embed.timestep_embedder.linear_2": "t_embedder.mlp.2",
    "time_text_embed.text_embedder.linear_1": "y_embedder.mlp.0",
    "time_text_embed.text_embedder.linear_2": "y_embedder.mlp.2",
    "norm_out.linear": "final_layer.adaLN_modulation.1",
    "proj_out": "final_layer.linear",
}
_POSITIONS = "pos_embed.pos_embed"  # no module's weight: a table


def original_layer(module: str, config: ComponentConfig) -> OriginalLayer:
    last = f"transformer_blocks.{config['num_layers'] - 1}.norm1_context.linear"  # it has shift and scale alone
    found = layer_of(module, _BLOCKS, _OUTSIDE)
    return OriginalLayer(found.name, found.parts, is_swapped=module in ("norm_out.linear", last))


def to_kohya(component: str, layers: LoraLayers, config: ComponentConfig) -> dict[str, LoraLayer]:
    if component == "transformer":
        named = joined_lora(layers, config, original_layer, _rows)
    else:
        named = {module if component == _T5 else text_module(module): one for module, one in layers.items()}
    prefix = KOHYA_PREFIXES.get(component, "lora_unet_")
    return {prefix + module.replace(".", "_"): one for module, one in named.items()}


def to_original(component: str, weights: Mapping[str, Tensor], config: ComponentConfig) -> dict[str, Tensor]:
    match component:
        case "transformer":
            inside = {key: one for key, one in weights.items() if key != _POSITIONS}
            named = {"pos_embed": weights[_POSITIONS], **original_weights(inside, config, original_layer)}
            return {PREFIX + key: one for key, one in named.items()}
        case "vae":
            return original_vae(weights, config)
        case "text_encoder" | "text_encoder_2":
            return transformers_clip(weights, TEXT_ENCODERS[component])
        case "text_encoder_3":
            return transformers_t5(weights, TEXT_ENCODERS[component])
        case _:
            raise AssertionError(f"a single file of SD 3 has no {component}")


def _rows(_module: str, config: ComponentConfig) -> int:
    return config["num_attention_heads"] * config["attention_head_dim"]


SD3 = FamilyKeys(
    family="sd3",
    components=("transformer", "vae", "text_encoder", "text_encoder_2", "text_encoder_3"),
    to_kohya=to_kohya,
    to_original=to_original,
    architecture=lambda config: "stable-diffusion-v3.5" if config.get("qk_norm") else "stable-diffusion-v3",
    base_version=lambda config: "sd3.5" if config.get("qk_norm") else "sd3",
    joined=original_layer,
    implementation="https://github.com/Stability-AI/sd3.5",
)
