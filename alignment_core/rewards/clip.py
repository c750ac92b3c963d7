"""CLIP (arXiv 2103.00020), the model that most learned rewards are made of: embeddings of images and of prompts.

Any CLIP in transformers' format. Weights are read in float32 and from safetensors alone.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from alignment_core.errors import ModelError
from alignment_core.quiet import only_errors
from alignment_core.shapes import Images

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

_BICUBIC = 3  # PIL.Image.Resampling.BICUBIC, as image processors store it


def normalize(images: Tensor, mean: tuple[float, ...] = MEAN, std: tuple[float, ...] = STD) -> Tensor:
    """(images - mean) / std of each channel; CLIP's own statistics unless told otherwise."""
    shift, scale = (images.new_tensor(values).view(3, 1, 1) for values in (mean, std))
    return (images - shift) / scale


@dataclass(frozen=True)
class Preprocessing:
    """From pixels in [0, 1] to CLIP's input: shorter side, centre crop, normalisation."""

    shorter_side: int
    crop_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, images: Images) -> Float[Tensor, "batch 3 crop crop"]:
        """Differentiable. PIL's bicubic up to its rounding to 8 bits, so antialiasing is on and overshoots are cut."""
        height, width = images.shape[-2:]
        shorter = min(height, width)
        size = [self.shorter_side * side // shorter for side in (height, width)]
        images = F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        top, left = ((side - self.crop_size) // 2 for side in size)
        images = images[..., top : top + self.crop_size, left : left + self.crop_size]
        return normalize(images, self.mean, self.std)


class Clip:
    """A frozen CLIP with its tokenizer. Embeddings are float32 [B, width], not normalised."""

    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
        self.model = model.requires_grad_(False).eval()
        self._tokenizer = tokenizer

    def embed_pixels(self, pixels: Float[Tensor, "batch 3 side side"]) -> Float[Tensor, "batch width"]:
        """Embeddings of preprocessed images; differentiable with respect to them."""
        return _embedding(self.model.get_image_features(pixel_values=cast(torch.FloatTensor, pixels)))

    @torch.no_grad()
    def embed_prompts(self, prompts: Sequence[str], device: torch.device) -> Float[Tensor, "batch width"]:
        """Embeddings of prompts; those longer than the text model's positions (77 tokens) are cut."""
        # Padded to the full length, so that a score does not depend on the other prompts of its batch.
        encoded = self._tokenizer(
            list(prompts),
            padding="max_length",
            max_length=cast(CLIPTextConfig, self.model.config.text_config).max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        ids, mask = (cast(Tensor, encoded[key]).to(device) for key in ("input_ids", "attention_mask"))
        return _embedding(self.model.get_text_features(ids, mask))

    def cosine(self, pixels: Float[Tensor, "batch 3 side side"], prompts: Sequence[str]) -> Float[Tensor, " batch"]:
        """Cosine of each image's embedding and its prompt's, in [-1, 1]."""
        return F.cosine_similarity(self.embed_pixels(pixels), self.embed_prompts(prompts, pixels.device), dim=-1)

    @property
    def image_size(self) -> int:
        """Pixels of the side of a preprocessed image."""
        return cast(int, cast(CLIPVisionConfig, self.model.config.vision_config).image_size)

    @property
    def width(self) -> int:
        """Length of an embedding."""
        return self.model.visual_projection.out_features


def _embedding(output: tuple[Any, ...] | BaseModelOutputWithPooling) -> Float[Tensor, "batch width"]:
    return cast(Tensor, cast(BaseModelOutputWithPooling, output).pooler_output)


def load_clip(folder: Path, variant: str | None, device: torch.device, processor: Path | None = None) -> Clip:
    """The CLIP in `folder`: config.json, model.safetensors, and the tokenizer files there or in `processor`.

    Raises `ModelError` naming the folder and what is missing or does not fit.
    """
    processor = processor or folder
    if not (folder / "config.json").is_file():
        raise ModelError("model_not_found", f"{folder}: expected a CLIP model with a config.json")
    if not any((processor / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise ModelError("model_not_found", f"{processor}: expected a CLIP tokenizer, tokenizer.json or vocab.json")
    _check_model_type(folder / "config.json")
    try:
        with only_errors():  # transformers warns of what is checked below
            loaded = CLIPModel.from_pretrained(
                folder,
                variant=variant,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
            tokenizer = CLIPTokenizer.from_pretrained(processor, local_files_only=True)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError("model_invalid", f"{folder}: no CLIP model could be loaded: {error}") from error
    model, info = cast(tuple[CLIPModel, dict[str, Any]], loaded)
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            "model_invalid", f"{folder}: the weights lack {len(missing)} tensors of CLIP, {missing[0]} first"
        )
    for name, found, expected in sorted(info["mismatched_keys"]):
        difference = f"{name} has the shape {list(found)}, expected {list(expected)}"
        raise ModelError("model_invalid", f"{folder}: {difference}")
    _check_vocabulary(folder, model, tokenizer)
    cast(nn.Module, model).to(device)
    return Clip(model, tokenizer)


def _check_vocabulary(folder: Path, model: CLIPModel, tokenizer: CLIPTokenizer) -> None:
    size, highest = cast(CLIPTextConfig, model.config.text_config).vocab_size, max(tokenizer.get_vocab().values())
    if highest >= size:
        message = f"{folder}: the tokenizer has a token {highest}, and the text model has {size} embeddings"
        raise ModelError("model_parts_mismatch", message)


def load_preprocessing(folder: Path, image_size: int) -> Preprocessing:
    """What `preprocessor_config.json` in `folder` does to an image. Raises `ModelError` for anything but CLIP's way."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        raise ModelError("model_not_found", f"{folder}: expected a CLIP model with a preprocessor_config.json")
    try:
        config = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True).to_dict()
    except (OSError, ValueError) as error:
        raise ModelError("model_invalid", f"{path}: could not be read: {error}") from error
    shorter_side = (config["size"] or {}).get("shortest_edge") or 0
    steps = all(config[f"do_{step}"] for step in ("resize", "center_crop", "rescale", "normalize"))
    crop_fits = config["crop_size"] == {"height": image_size, "width": image_size} and shorter_side >= image_size
    if not (steps and crop_fits and config["resample"] == _BICUBIC):
        raise ModelError(
            "model_unsupported",
            f"{path}: expected a bicubic resize of the shortest edge to {image_size} or more, a centre crop of "
            f"{image_size} x {image_size} and normalisation; found size {config['size']}, crop_size {config['crop_size']}, "
            f"resample {config['resample']}",
        )
    return Preprocessing(shorter_side, image_size, tuple(config["image_mean"]), tuple(config["image_std"]))


def _check_model_type(path: Path) -> None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError("model_invalid", f"{path}: not valid JSON: {error}") from error
    if not isinstance(config, dict) or config.get("model_type") != "clip":
        raise ModelError("model_unsupported", f'{path}: expected "model_type": "clip"')
