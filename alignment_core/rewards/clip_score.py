"""CLIP score: does the image match its prompt, by CLIP (arXiv 2103.00020)?

Any CLIP in transformers' format. Scores of different CLIPs are not comparable: a report says which one it used.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPImageProcessorPil, CLIPModel, CLIPTextConfig, CLIPTokenizer, CLIPVisionConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from alignment_core.errors import ModelError
from alignment_core.protocols import Images, PerExample
from alignment_core.rewards.images import check_images

_BICUBIC = 3  # PIL.Image.Resampling.BICUBIC, as image processors store it


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
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (self.mean, self.std))
        return (images - mean) / std


class ClipScore:
    """Cosine of CLIP's embeddings of image and prompt, in [-1, 1]; float32 [B], differentiable.

    Prompts longer than the text model's positions (77 tokens) are cut.
    """

    differentiable = True

    def __init__(self, model: CLIPModel, tokenizer: CLIPTokenizer, preprocessing: Preprocessing) -> None:
        self._model = model.requires_grad_(False).eval()
        self._tokenizer = tokenizer
        self._preprocessing = preprocessing

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        check_images(images, prompts)
        pixels = self._preprocessing(images.float())
        image = _embedding(self._model.get_image_features(pixel_values=cast(torch.FloatTensor, pixels)))
        with torch.no_grad():
            input_ids, attention_mask = self._tokens(prompts, images.device)
            text = _embedding(self._model.get_text_features(input_ids, attention_mask))
        return F.cosine_similarity(image, text, dim=-1)

    def _tokens(self, prompts: Sequence[str], device: torch.device) -> tuple[Tensor, Tensor]:
        """Ids and mask [B, positions], padded so that a score does not depend on the other prompts of its batch."""
        encoded = self._tokenizer(
            list(prompts),
            padding="max_length",
            max_length=cast(CLIPTextConfig, self._model.config.text_config).max_position_embeddings,
            truncation=True,
            return_tensors="pt",
        )
        return cast(Tensor, encoded["input_ids"]).to(device), cast(Tensor, encoded["attention_mask"]).to(device)


def _embedding(output: tuple[Any, ...] | BaseModelOutputWithPooling) -> Float[Tensor, "batch width"]:
    return cast(Tensor, cast(BaseModelOutputWithPooling, output).pooler_output)


def load_clip_score(folder: Path, variant: str | None, device: torch.device) -> ClipScore:
    """The CLIP in `folder`, as published: config.json, model.safetensors, tokenizer files, preprocessor_config.json.

    Weights are read in float32 and from safetensors alone. Raises `ModelError` naming what is missing or does not fit.
    """
    for required in ("config.json", "preprocessor_config.json"):
        if not (folder / required).is_file():
            raise ModelError("model_not_found", f"{folder}: expected a CLIP model with a {required}")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise ModelError("model_not_found", f"{folder}: expected a CLIP tokenizer, tokenizer.json or vocab.json")
    _check_model_type(folder / "config.json")
    try:
        loaded = CLIPModel.from_pretrained(
            folder,
            variant=variant,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
        processor = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError("model_invalid", f"{folder}: no CLIP model could be loaded: {error}") from error
    model, info = cast(tuple[CLIPModel, dict[str, Any]], loaded)
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            "model_invalid", f"{folder}: the weights lack {len(missing)} tensors of CLIP, {missing[0]} first"
        )
    image_size = cast(CLIPVisionConfig, model.config.vision_config).image_size
    preprocessing = _preprocessing(processor.to_dict(), cast(int, image_size), folder / "preprocessor_config.json")
    cast(nn.Module, model).to(device)
    return ClipScore(model, tokenizer, preprocessing)


def _check_model_type(path: Path) -> None:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError("model_invalid", f"{path}: not valid JSON: {error}") from error
    if not isinstance(config, dict) or config.get("model_type") != "clip":
        raise ModelError("model_unsupported", f'{path}: expected "model_type": "clip"')


def _preprocessing(config: dict[str, Any], image_size: int, path: Path) -> Preprocessing:
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
