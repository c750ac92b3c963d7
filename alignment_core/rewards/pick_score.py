"""PickScore (Kirstain et al., arXiv 2305.01569): a CLIP-H tuned on the choices of Pick-a-Pic.

For images of one prompt, the softmax of their scores is the predicted probability of each to be preferred.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from alignment_core.rewards.clip import Clip, Preprocessing, load_clip, load_preprocessing
from alignment_core.rewards.images import check_images
from alignment_core.shapes import Images, PerExample


class PickScore:
    """`exp(logit_scale) cos(image, prompt)`, with the tuned model's own scale (about 100); float32 [B], differentiable."""

    differentiable = True

    def __init__(self, clip: Clip, preprocessing: Preprocessing) -> None:
        self._clip = clip
        self._preprocessing = preprocessing

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        check_images(images, prompts)
        cosine = self._clip.cosine(self._preprocessing(images.float()), prompts)
        return self._clip.model.logit_scale.exp() * cosine


def load_pick_score(folder: Path, processor: Path | None, variant: str | None, device: torch.device) -> PickScore:
    """PickScore from the tuned CLIP in `folder` and the tokenizer and preprocessor there or in `processor`.

    Raises `ModelError` naming what is missing or does not fit.
    """
    clip = load_clip(folder, variant, device, processor)
    return PickScore(clip, load_preprocessing(processor or folder, clip.image_size))
