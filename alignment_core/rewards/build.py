"""From a reward's spec to the reward model."""

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

import torch

from alignment_core.errors import ModelError
from alignment_core.protocols import RewardModel
from alignment_core.rewards.aesthetic import load_aesthetic
from alignment_core.rewards.attribute_classifier import AttributeClassifier
from alignment_core.rewards.brightness import Brightness
from alignment_core.rewards.clip_score import load_clip_score
from alignment_core.rewards.colorfulness import Colorfulness
from alignment_core.rewards.finite import FiniteReward
from alignment_core.rewards.hps import load_hps
from alignment_core.rewards.image_reward import load_image_reward
from alignment_core.rewards.images import check_images
from alignment_core.rewards.jpeg_size import JpegSize
from alignment_core.rewards.pick_score import load_pick_score
from alignment_core.rewards.remote import Remote
from alignment_core.rewards.signed_post import Access, SignedPost
from alignment_core.rewards.source import fetch_folder
from alignment_core.rewards.symmetry import Symmetry
from alignment_core.rewards.weighted_sum import WeightedSum
from alignment_core.shapes import Images, PerExample
from alignment_core.spec import (
    AestheticReward,
    AttributeClassifierReward,
    BrightnessReward,
    ClipScoreReward,
    ColorfulnessReward,
    HpsV2Reward,
    HpsV21Reward,
    HubSource,
    ImageRewardReward,
    JpegSizeReward,
    PickScoreReward,
    RemoteReward,
    RewardSpec,
    SymmetryReward,
    WeightedSumReward,
    WeightsSpec,
    reward_name,
)


def build_reward(spec: RewardSpec, device: torch.device) -> RewardModel:
    """The reward model of `spec`, frozen, on `device`; its weights are read here.

    Calling it raises `ValueError` for images or prompts that it cannot score and `AlignmentError("reward_not_finite")`
    for scores that are no numbers. Raises `ModelError` when weights are missing or do not fit.
    """
    return FiniteReward(reward_name(spec), _build(spec, device), device)


def build_ranking_reward(spec: RewardSpec, device: torch.device) -> RewardModel:
    """The reward model for a method that ranks images: scores that are no numbers decide nothing, and stop nothing."""
    return _build(spec, device)


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
        case SymmetryReward():
            return Symmetry()
        case JpegSizeReward():
            return JpegSize(spec.direction, spec.quality)
        case AttributeClassifierReward():
            return _load_classifier(spec, device)
        case ClipScoreReward(model=model):
            return load_clip_score(_folder(spec, model), _variant(model), device)
        case PickScoreReward(model=model, processor=processor):
            beside = None if processor is None else _folder(spec, processor)
            return load_pick_score(_folder(spec, model), beside, _variant(model), device)
        case HpsV2Reward(model=model) | HpsV21Reward(model=model):
            return load_hps(_folder(spec, model), spec.type, _variant(model), device)
        case ImageRewardReward(weights=weights):
            return load_image_reward(_folder(spec, weights), device)
        case AestheticReward(model=model, weights=weights):
            return load_aesthetic(_folder(spec, model), _variant(model), _folder(spec, weights), device)
        case RemoteReward():
            access = Access.from_environment()
            return Remote(SignedPost(spec.url, access, spec.timeout_seconds, spec.max_attempts), spec.batch_size)
        case WeightedSumReward(parts=parts):
            return WeightedSum([(part.weight, build_reward(part.reward, device)) for part in parts])
        case _:
            assert_never(spec)


def _load_classifier(spec: AttributeClassifierReward, device: torch.device) -> AttributeClassifier:
    folder = fetch_folder(reward_name(spec), spec.weights)
    try:
        return AttributeClassifier.load(folder, device)
    except ValueError as error:
        raise ModelError("reward_invalid", f"reward {reward_name(spec)!r}: {error}") from error


def _folder(spec: RewardSpec, source: WeightsSpec) -> Path:
    return fetch_folder(reward_name(spec), source)


def _variant(source: WeightsSpec) -> str | None:
    return source.variant if isinstance(source, HubSource) else None
