"""Whether the parts of a Stable Diffusion 3 folder fit each other, read from their configs before any weight is."""

import math

from alignment_core.errors import ModelError
from alignment_core.families.flow_schedule import positive
from alignment_core.families.sd_configs import NUM_COLOURS, Config, read_config
from alignment_core.families.source import ModelFolder

CLIP_TOKENIZERS = ("CLIPTokenizer", "CLIPTokenizerFast")
PARTS = {
    "transformer": ("SD3Transformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModelWithProjection",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer": CLIP_TOKENIZERS,
    "tokenizer_2": CLIP_TOKENIZERS,
}
T5_PARTS = {"text_encoder_3": ("T5EncoderModel",), "tokenizer_3": ("T5Tokenizer", "T5TokenizerFast")}


def has_t5(folder: ModelFolder) -> bool:
    """Whether the folder has the third text encoder, which it may leave out."""
    return _class_of(read_config(folder.path / "model_index.json"), "text_encoder_3") is not None


def check_sd3(folder: ModelFolder) -> None:
    """Raise `ModelError` with the key of the config where one part does not fit the others."""
    index = read_config(folder.path / "model_index.json")
    for part, classes in {**PARTS, **(T5_PARTS if has_t5(folder) else {})}.items():
        if (found := _class_of(index, part)) not in classes:
            raise ModelError("model_unsupported", f"{index.path}: {part} is {found!r}; expected {classes[0]}")
    transformer = _config(folder, "transformer")
    _check_vae(_config(folder, "vae"), transformer)
    _check_text(folder, transformer)
    _check_patches(transformer)


def _class_of(index: Config, part: str) -> object:
    entry = index.get(part)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 else entry


def _config(folder: ModelFolder, part: str) -> Config:
    return read_config(folder.path / part / "config.json")


def _check_vae(vae: Config, transformer: Config) -> None:
    for key in ("in_channels", "out_channels"):
        _expect(vae, key, NUM_COLOURS, "the colours of an image")
        _expect(transformer, key, vae.count("latent_channels"), f"the latent_channels of {vae.path}")
    positive(vae, "scaling_factor")
    shift = vae.get("shift_factor")
    if isinstance(shift, bool) or not isinstance(shift, int | float) or not math.isfinite(shift):
        raise ModelError("model_invalid", f"{vae.path}: shift_factor is {shift!r}; expected a number")
    for key in ("latents_mean", "latents_std"):
        if vae.values.get(key) is not None:
            raise ModelError(
                "model_unsupported", f"{vae.path}: {key} is set; Stable Diffusion 3 has one scale and one shift"
            )


def _check_text(folder: ModelFolder, transformer: Config) -> None:
    """Both CLIPs stand side by side in the width of the T5, and their projections make the pooled one."""
    clips = [_config(folder, part) for part in ("text_encoder", "text_encoder_2")]
    projected, hidden = (sum(clip.count(key) for clip in clips) for key in ("projection_dim", "hidden_size"))
    _expect(transformer, "pooled_projection_dim", projected, "the projection_dim of both CLIP text encoders")
    width = transformer.count("joint_attention_dim")
    if width < hidden:
        raise ModelError(
            "model_parts_mismatch",
            f"{transformer.path}: joint_attention_dim is {width}; expected at least {hidden}, the hidden_size of both CLIP text "
            "encoders",
        )
    if has_t5(folder):
        t5 = _config(folder, "text_encoder_3")
        _expect(transformer, "joint_attention_dim", t5.count("d_model"), f"the d_model of {t5.path}")


def _check_patches(transformer: Config) -> None:
    inner = transformer.count("num_attention_heads") * transformer.count("attention_head_dim")
    _expect(transformer, "caption_projection_dim", inner, "num_attention_heads x attention_head_dim")
    side, patch = transformer.count("sample_size"), transformer.count("patch_size")
    if side % patch:
        raise ModelError(
            "model_invalid", f"{transformer.path}: sample_size is {side}, and patch_size {patch} does not divide it"
        )
    if (most := transformer.count("pos_embed_max_size")) < side // patch:
        raise ModelError(
            "model_parts_mismatch",
            f"{transformer.path}: pos_embed_max_size is {most}; expected at least {side // patch}, sample_size / patch_size",
        )


def _expect(config: Config, key: str, expected: int, meaning: str) -> None:
    if (found := config.count(key)) != expected:
        raise ModelError("model_parts_mismatch", f"{config.path}: {key} is {found}; expected {expected}, {meaning}")
