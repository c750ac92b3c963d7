"""LAION's aesthetic predictor v2 (christophschuhmann/improved-aesthetic-predictor): how good an image looks, whatever its prompt.

Published as five linear layers on CLIP ViT-L/14's unit image embedding; without activations they are one affine map,
which `alignment_core.rewards.convert` makes of them.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from alignment_core.errors import ModelError
from alignment_core.rewards.clip import Clip, Preprocessing, load_clip, load_preprocessing
from alignment_core.rewards.images import check_images
from alignment_core.rewards.tensors import check_tensors, read_tensors
from alignment_core.shapes import Images, PerExample


class Aesthetic:
    """`w . e / |e| + b` with CLIP's image embedding e; prompts are not read. float32 [B], differentiable."""

    differentiable = True

    def __init__(
        self, clip: Clip, preprocessing: Preprocessing, weight: Float[Tensor, "1 width"], bias: Float[Tensor, "1"]
    ) -> None:
        self._clip = clip
        self._preprocessing = preprocessing
        self._weight = weight
        self._bias = bias

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        check_images(images, prompts)
        embedding = self._clip.embed_pixels(self._preprocessing(images.float()))
        return F.linear(F.normalize(embedding, dim=-1), self._weight, self._bias)[:, 0]


def load_aesthetic(clip_folder: Path, variant: str | None, head_folder: Path, device: torch.device) -> Aesthetic:
    """The CLIP in `clip_folder` under the affine map in `head_folder`'s model.safetensors: `weight` and `bias`.

    Raises `ModelError` naming what is missing or does not fit.
    """
    clip = load_clip(clip_folder, variant, device)
    path = head_folder / "model.safetensors"
    head = read_tensors(path)
    try:
        check_tensors(head, {"weight": (1, clip.width), "bias": (1,)})
    except ValueError as error:
        raise ModelError("reward_invalid", f"{path}: {error}") from error
    preprocessing = load_preprocessing(clip_folder, clip.image_size)
    return Aesthetic(clip, preprocessing, head["weight"].to(device), head["bias"].to(device))
