"""CLIP score: does the image match its prompt, by CLIP (arXiv 2103.00020)?

Any CLIP in transformers' format. Scores of different CLIPs are not comparable: a report says which one it used.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from alignment_core.rewards.clip import Clip, Preprocessing, load_clip, load_preprocessing
from alignment_core.rewards.images import check_images
from alignment_core.shapes import Images, PerExample


class ClipScore:
    """Cosine of CLIP's embeddings of image and prompt, in [-1, 1]; float32 [B], differentiable."""

    differentiable = True

    def __init__(self, clip: Clip, preprocessing: Preprocessing) -> None:
        self._clip = clip
        self._preprocessing = preprocessing

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        check_images(images, prompts)
        return self._clip.cosine(self._preprocessing(images.float()), prompts)


def load_clip_score(folder: Path, variant: str | None, device: torch.device) -> ClipScore:
    """The CLIP in `folder`, as published: config.json, model.safetensors, tokenizer files, preprocessor_config.json.

    Raises `ModelError` naming what is missing or does not fit.
    """
    clip = load_clip(folder, variant, device)
    return ClipScore(clip, load_preprocessing(folder, clip.image_size))
