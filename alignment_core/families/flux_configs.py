"""Whether the parts of a FLUX.1 folder fit each other, read from their configs before any weight is."""

import math

from alignment_core.errors import ModelError
from alignment_core.families.flow_schedule import positive
from alignment_core.families.sd_configs import NUM_COLOURS, Config, read_config
from alignment_core.families.source import ModelFolder

PARTS = {
    "transformer": ("FluxTransformer2DModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("T5EncoderModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
    "tokenizer_2": ("T5Tokenizer", "T5TokenizerFast"),
}
PATCH = 2  # a token of the transformer is so many latents in height and in width
PUBLISHED_AXES = [16, 56, 56]  # FLUX.1's files leave `axes_dims_rope` to diffusers, which has these


def check_flux(folder: ModelFolder) -> None:
    """Raise `ModelError` with the key of the config where one part does not fit the others."""
    index = read_config(folder.path / "model_index.json")
    for part, classes in PARTS.items():
        entry = index.get(part)
        found = entry[1] if isinstance(entry, list) and len(entry) == 2 else entry
        if found not in classes:
            raise ModelError("model_unsupported", f"{index.path}: {part} is {found!r}; expected {classes[0]}")
    transformer, vae = _config(folder, "transformer"), _config(folder, "vae")
    _check_vae(vae)
    _check_latents(transformer, vae)
    _check_text(folder, transformer)
    _check_positions(transformer)


def _config(folder: ModelFolder, part: str) -> Config:
    return read_config(folder.path / part / "config.json")


def _check_vae(vae: Config) -> None:
    for key in ("in_channels", "out_channels"):
        _expect(vae, key, NUM_COLOURS, "the colours of an image")
    positive(vae, "scaling_factor")
    shift = vae.get("shift_factor")
    if isinstance(shift, bool) or not isinstance(shift, int | float) or not math.isfinite(shift):
        raise ModelError("model_invalid", f"{vae.path}: shift_factor is {shift!r}; expected a number")
    for key in ("latents_mean", "latents_std"):
        if vae.values.get(key) is not None:
            raise ModelError("model_unsupported", f"{vae.path}: {key} is set; FLUX.1 has one scale and one shift")
    stages = vae.get("block_out_channels")
    if not isinstance(stages, list) or not stages:
        raise ModelError("model_invalid", f"{vae.path}: block_out_channels is {stages!r}; expected a list of numbers")
    unit = PATCH * 2 ** (len(stages) - 1)
    if (side := vae.count("sample_size")) % unit:  # the transformer says nothing of a size
        raise ModelError("model_invalid", f"{vae.path}: sample_size is {side}; expected a multiple of {unit}")


def _check_latents(transformer: Config, vae: Config) -> None:
    channels = PATCH**2 * vae.count("latent_channels")
    meaning = f"{PATCH**2} x the latent_channels of {vae.path}"
    _expect(transformer, "in_channels", channels, meaning)
    if transformer.values.get("out_channels") is not None:  # as many as come in, where it is left out
        _expect(transformer, "out_channels", channels, meaning)
    _expect(transformer, "patch_size", 1, "as latents come to it packed")


def _check_text(folder: ModelFolder, transformer: Config) -> None:
    clip, t5 = _config(folder, "text_encoder"), _config(folder, "text_encoder_2")
    _expect(transformer, "pooled_projection_dim", clip.count("hidden_size"), f"the hidden_size of {clip.path}")
    _expect(transformer, "joint_attention_dim", t5.count("d_model"), f"the d_model of {t5.path}")
    if not isinstance(embeds := transformer.get("guidance_embeds"), bool):
        raise ModelError("model_invalid", f"{transformer.path}: guidance_embeds is {embeds!r}; expected true or false")


def _check_positions(transformer: Config) -> None:
    """Each head has a part for the text, one for rows and one for columns, of pairs of numbers that are turned."""
    axes, width = transformer.values.get("axes_dims_rope", PUBLISHED_AXES), transformer.count("attention_head_dim")
    fits = isinstance(axes, list) and len(axes) == 3 and all(isinstance(one, int) and one % 2 == 0 for one in axes)
    if not fits or sum(axes) != width:
        raise ModelError(
            "model_parts_mismatch",
            f"{transformer.path}: axes_dims_rope is {axes!r}; expected three even numbers with the sum {width}, the "
            "attention_head_dim",
        )


def _expect(config: Config, key: str, expected: int, meaning: str) -> None:
    if (found := config.count(key)) != expected:
        raise ModelError("model_parts_mismatch", f"{config.path}: {key} is {found}; expected {expected}, {meaning}")
