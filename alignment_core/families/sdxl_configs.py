"""Whether the parts of an SDXL folder fit each other, read from their configs before any weight is."""

from alignment_core.errors import ModelError
from alignment_core.families.sd_configs import (
    OTHER_INPUTS,
    PARTS,
    Config,
    check_classes,
    check_latents,
    check_text_width,
    latent_side,
    read_config,
    refuse_set,
)
from alignment_core.families.source import ModelFolder

XL_PARTS = {
    **PARTS,
    "text_encoder_2": ("CLIPTextModelWithProjection",),
    "tokenizer_2": PARTS["tokenizer"],
}
NUM_TIME_IDS = 6  # height and width of the file, top and left of the crop, height and width of the image


def check_xl_parts(folder: ModelFolder) -> None:
    """Raise `ModelError` with the key of the config where one part does not fit the others."""
    check_classes(folder, XL_PARTS)
    unet = read_config(folder.path / "unet" / "config.json")
    first = read_config(folder.path / "text_encoder" / "config.json")
    second = read_config(folder.path / "text_encoder_2" / "config.json")
    others = [key for key in OTHER_INPUTS if key != "addition_embed_type"]
    refuse_set(unet, others, "the U-Net wants an input that SDXL does not give")
    check_latents(unet, read_config(folder.path / "vae" / "config.json"))
    width = first.count("hidden_size") + second.count("hidden_size")
    check_text_width(unet, width, f"the hidden_size of {first.path} and of {second.path} together")
    _check_addition(unet, second)
    latent_side(unet)


def _check_addition(unet: Config, second: Config) -> None:
    """The refiner is told an aesthetic score in place of the image's size, which makes its input narrower."""
    if (kind := unet.get("addition_embed_type")) != "text_time":
        raise ModelError("model_unsupported", f"{unet.path}: addition_embed_type is {kind!r}; expected 'text_time'")
    expected = NUM_TIME_IDS * unet.count("addition_time_embed_dim") + second.count("projection_dim")
    if (found := unet.count("projection_class_embeddings_input_dim")) != expected:
        raise ModelError(
            "model_parts_mismatch",
            f"{unet.path}: projection_class_embeddings_input_dim is {found}; expected {expected}: {NUM_TIME_IDS} sizes of "
            f"addition_time_embed_dim, and the projection_dim of {second.path}",
        )
