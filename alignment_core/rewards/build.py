"""From a reward's spec to the reward model."""

from collections.abc import Sequence
from typing import assert_never

import torch

from alignment_core.errors import ModelError
from alignment_core.protocols import Images, PerExample, RewardModel
from alignment_core.rewards.attribute_classifier import AttributeClassifier
from alignment_core.rewards.brightness import Brightness
from alignment_core.rewards.clip_score import ClipScore, load_clip_score
from alignment_core.rewards.colorfulness import Colorfulness
from alignment_core.rewards.finite import FiniteReward
from alignment_core.rewards.images import check_images
from alignment_core.rewards.jpeg_size import JpegSize
from alignment_core.rewards.source import fetch_folder
from alignment_core.spec import (
    AttributeClassifierReward,
    BrightnessReward,
    ClipScoreReward,
    ColorfulnessReward,
    HubSource,
    JpegSizeReward,
    RewardSpec,
    reward_name,
)


def build_reward(spec: RewardSpec, device: torch.device) -> RewardModel:
    """The reward model of `spec`, frozen, on `device`; its weights are read here.

    Calling it raises `ValueError` for images or prompts that it cannot score and `AlignmentError("reward_not_finite")`
    for scores that are no numbers. Raises `ModelError` when weights are missing or do not fit.
    """
    return FiniteReward(reward_name(spec), _build(spec, device), device)


def build_prompt_following(spec: RewardSpec, device: torch.device) -> RewardModel:
    """The judge of prompt-following: a classifier's share of right attributes, any other reward's own score."""
    if isinstance(spec, AttributeClassifierReward):
        return FiniteReward(reward_name(spec), AttributeAccuracy(_load_classifier(spec, device)), device)
    return build_reward(spec, device)


class AttributeAccuracy:
    """Share of the attributes named in the prompt that the classifier sees in the image, in [0, 1]; float32 [B]."""

    differentiable = False

    def __init__(self, classifier: AttributeClassifier) -> None:
        self._classifier = classifier

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        check_images(images, prompts)
        return self._classifier.accuracy(images, prompts)


def _build(spec: RewardSpec, device: torch.device) -> RewardModel:
    match spec:
        case ColorfulnessReward():
            return Colorfulness()
        case BrightnessReward():
            return Brightness()
        case JpegSizeReward():
            return JpegSize(spec.direction, spec.quality)
        case AttributeClassifierReward():
            return _load_classifier(spec, device)
        case ClipScoreReward():
            return _load_clip(spec, device)
        case _:
            assert_never(spec)


def _load_classifier(spec: AttributeClassifierReward, device: torch.device) -> AttributeClassifier:
    folder = fetch_folder(reward_name(spec), spec.weights)
    try:
        return AttributeClassifier.load(folder, device)
    except ValueError as error:
        raise ModelError("reward_invalid", f"reward {reward_name(spec)!r}: {error}") from error


def _load_clip(spec: ClipScoreReward, device: torch.device) -> ClipScore:
    folder = fetch_folder(reward_name(spec), spec.model)
    variant = spec.model.variant if isinstance(spec.model, HubSource) else None
    return load_clip_score(folder, variant, device)
