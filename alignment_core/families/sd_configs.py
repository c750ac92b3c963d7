"""Whether the parts of an SD folder fit each other, read from their configs before any weight is.

Each key that is looked at must be there: what a file does not say is not guessed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment_core.errors import ModelError
from alignment_core.families.source import ModelFolder, read_json

PARTS = {
    "unet": ("UNet2DConditionModel",),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
# Inputs that other models' U-Nets take beside the text: sizes (SDXL), noise levels (upscalers), guidance (LCM), images.
OTHER_INPUTS = (
    *("addition_embed_type", "class_embed_type", "num_class_embeds", "time_cond_proj_dim"),
    *("encoder_hid_dim", "encoder_hid_dim_type"),
)
OTHER_LATENTS = ("shift_factor", "latents_mean", "latents_std")  # of VAEs whose latents are more than scaled
NUM_COLOURS = 3


@dataclass(frozen=True)
class Config:
    """A JSON file of a model folder."""

    path: Path
    values: dict[str, Any]

    def get(self, key: str) -> Any:
        """Raises `ModelError` where the key is missing."""
        if key not in self.values:
            raise ModelError("model_invalid", f"{self.path}: {key} is missing")
        return self.values[key]

    def count(self, key: str) -> int:
        """The value of a key that is a whole number above 0."""
        value = self.get(key)
        if not _is_count(value):
            raise ModelError("model_invalid", f"{self.path}: {key} is {value!r}; expected a whole number above 0")
        return value


def read_config(path: Path) -> Config:
    """Raises `ModelError` when the file is missing or no JSON object."""
    return Config(path, read_json(path))


def check_parts(folder: ModelFolder) -> None:
    """Raise `ModelError` with the key of the config where one part does not fit the others."""
    check_classes(folder, PARTS)
    unet = read_config(folder.path / "unet" / "config.json")
    vae = read_config(folder.path / "vae" / "config.json")
    text = read_config(folder.path / "text_encoder" / "config.json")
    refuse_set(unet, OTHER_INPUTS, "the U-Net wants an input that Stable Diffusion does not give")
    check_latents(unet, vae)
    check_text_width(unet, text.count("hidden_size"), f"the hidden_size of {text.path}")
    latent_side(unet)


def check_latents(unet: Config, vae: Config) -> None:
    """Raise `ModelError` where the U-Net does not take and give what the VAE makes of images."""
    refuse_set(vae, OTHER_LATENTS, "Stable Diffusion scales its latents and does not shift them")
    for key in ("in_channels", "out_channels"):
        expect(vae, key, NUM_COLOURS, "the colours of an image")
        expect(unet, key, vae.count("latent_channels"), f"the latent_channels of {vae.path}")


def latent_side(unet: Config) -> int:
    """The side of the U-Net's latents: a number, or two equal ones."""
    size = unet.get("sample_size")
    sides = list(size) if isinstance(size, list | tuple) else [size, size]
    if len(sides) != 2 or not all(_is_count(side) for side in sides):
        raise ModelError("model_invalid", f"{unet.path}: sample_size is {size!r}; expected a whole number above 0")
    if sides[0] != sides[1]:
        raise ModelError("model_unsupported", f"{unet.path}: sample_size is {size!r}; expected a square: both equal")
    return int(sides[0])


def check_vocabulary(
    folder: ModelFolder, vocabulary: dict[str, int], num_embeddings: int, encoder: str = "text_encoder"
) -> None:
    """Raise `ModelError` when the tokenizer knows tokens that the text encoder has no embedding for."""
    token, number = max(vocabulary.items(), key=lambda item: item[1])
    if number >= num_embeddings:
        raise ModelError(
            "model_parts_mismatch",
            f"{folder.path / encoder / 'config.json'}: vocab_size is {num_embeddings}, and the tokenizer's token "
            f"{token!r} has number {number}",
        )


def check_classes(folder: ModelFolder, parts: Mapping[str, tuple[str, ...]]) -> None:
    """Raise `ModelError` where a part of the folder is of another class."""
    index = read_config(folder.path / "model_index.json")
    for part, classes in parts.items():
        entry = index.get(part)
        found = entry[1] if isinstance(entry, list) and len(entry) == 2 else entry
        if found not in classes:
            raise ModelError("model_unsupported", f"{index.path}: {part} is {found!r}; expected {classes[0]}")


def check_text_width(unet: Config, expected: int, meaning: str) -> None:
    """Raise `ModelError` where the U-Net attends to text of another width."""
    widths = unet.get("cross_attention_dim")
    for width in widths if isinstance(widths, list) else [widths]:
        if width != expected:
            raise ModelError(
                "model_parts_mismatch",
                f"{unet.path}: cross_attention_dim is {widths!r}; expected {expected}, {meaning}",
            )


def expect(config: Config, key: str, expected: int, meaning: str) -> None:
    """Raise `ModelError` where a number of the config is another one."""
    if (found := config.count(key)) != expected:
        raise ModelError("model_parts_mismatch", f"{config.path}: {key} is {found}; expected {expected}, {meaning}")


def refuse_set(config: Config, keys: Iterable[str], reason: str) -> None:
    """Raise `ModelError` where the config has one of the keys."""
    for key in keys:
        if config.values.get(key) is not None:
            raise ModelError("model_unsupported", f"{config.path}: {key} is {config.values[key]!r}; {reason}")


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
