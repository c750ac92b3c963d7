"""Human Preference Score v2 and v2.1 (Wu et al., arXiv 2306.09341): a CLIP-H tuned on the rankings of HPDv2.

The weights are published for open_clip; `alignment_core.rewards.convert` maps them to transformers' names.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPVisionConfig

from alignment_core.errors import ModelError
from alignment_core.rewards.clip import Clip, load_clip, normalize
from alignment_core.rewards.images import check_images
from alignment_core.shapes import Images, PerExample

HpsVersion = Literal["hpsv2", "hpsv2.1"]


class HumanPreferenceScore:
    """Cosine of image and prompt, without the logit scale; papers report it times 100. float32 [B], differentiable."""

    differentiable = True

    def __init__(self, clip: Clip) -> None:
        self._clip = clip

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        check_images(images, prompts)
        return self._clip.cosine(letterbox(images.float(), self._clip.image_size), prompts)


def letterbox(images: Images, side: int) -> Float[Tensor, "batch 3 side side"]:
    """Longest side to `side`, black around it to a centred square, then CLIP's normalisation; nothing is cropped.

    The published code resizes tensors, not PIL images: bicubic overshoots stay. Antialiasing, which there depends on
    torchvision's version, is on.
    """
    height, width = images.shape[-2:]
    scale = side / max(height, width)
    size = [max(1, round(length * scale)) for length in (height, width)]
    images = F.interpolate(images, size, mode="bicubic", align_corners=False, antialias=True)
    rows, columns = (side - length for length in size)
    images = F.pad(images, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    return normalize(images)


def load_hps(folder: Path, version: HpsVersion, variant: str | None, device: torch.device) -> HumanPreferenceScore:
    """The tuned CLIP in `folder`: config.json, model.safetensors, tokenizer files.

    Raises `ModelError` naming what is missing or does not fit: weights converted as the other version, or CLIP's own
    activation, with which the weights load and every score is wrong.
    """
    clip = load_clip(folder, variant, device)
    path, config = folder / "config.json", clip.model.config
    if (found := getattr(config, "hps_version", None)) not in (None, version):
        raise ModelError("model_invalid", f"{path}: these are the weights of {found}, expected {version}")
    for tower in (cast(CLIPTextConfig, config.text_config), cast(CLIPVisionConfig, config.vision_config)):
        if tower.hidden_act != "gelu":
            raise ModelError("model_invalid", f'{path}: expected "hidden_act": "gelu", found {tower.hidden_act!r}')
    return HumanPreferenceScore(clip)
