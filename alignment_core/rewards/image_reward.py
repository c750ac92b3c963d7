"""ImageReward (Xu et al., arXiv 2304.05977): a BLIP that reads the prompt with an eye on the image, tuned on ranked images.

The weights are published as a pickled file; `alignment_core.rewards.convert` maps them to transformers' names.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import BertTokenizer, BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

from alignment_core.errors import ModelError
from alignment_core.rewards.clip import MEAN, STD, Preprocessing
from alignment_core.rewards.images import check_images
from alignment_core.rewards.tensors import check_tensors, read_tensors
from alignment_core.shapes import Images, PerExample

SCORE_MEAN, SCORE_STD = 0.16717362830052426, 1.0333394966054072  # of the published model's raw scores
PROMPT_TOKENS = 35
MLP_RATIO = 4


@dataclass(frozen=True)
class BlipShape:
    """Widths, layers and heads of the two towers. The defaults are the published ones: ViT-L/16 and BERT base."""

    image_size: int = 224
    patch_size: int = 16
    vision_width: int = 1024
    vision_layers: int = 24
    vision_heads: int = 16
    text_width: int = 768
    text_layers: int = 12
    text_heads: int = 12
    vocabulary: int = 30524
    positions: int = 512

    @classmethod
    def from_dict(cls, data: Any) -> "BlipShape":
        """Reads what `to_dict` wrote. Raises ValueError."""
        names = {field.name for field in fields(cls)}
        if not isinstance(data, dict) or set(data) != names:
            raise ValueError(f"expected exactly the keys {sorted(names)}")
        if not all(type(value) is int and 0 < value < 2**20 for value in data.values()):
            raise ValueError("expected positive integers")
        return cls(**data)

    def to_dict(self) -> dict[str, int]:
        """The shape as JSON data."""
        return asdict(self)


class ImageRewardNetwork(nn.Module):
    """Raw score [B] of pixels and tokens: BLIP's vision tower, BERT with cross-attention to it, an affine map of [CLS]."""

    def __init__(self, shape: BlipShape) -> None:
        super().__init__()
        self.vision_model = BlipVisionModel(
            BlipVisionConfig(
                hidden_size=shape.vision_width,
                intermediate_size=MLP_RATIO * shape.vision_width,
                num_hidden_layers=shape.vision_layers,
                num_attention_heads=shape.vision_heads,
                image_size=shape.image_size,
                patch_size=shape.patch_size,
                hidden_act="gelu",
                layer_norm_eps=1e-6,  # BLIP's own; transformers' default is 1e-5
            )
        )
        text = BlipTextConfig(
            hidden_size=shape.text_width,
            encoder_hidden_size=shape.vision_width,
            intermediate_size=MLP_RATIO * shape.text_width,
            num_hidden_layers=shape.text_layers,
            num_attention_heads=shape.text_heads,
            vocab_size=shape.vocabulary,
            max_position_embeddings=shape.positions,
            hidden_act="gelu",
            layer_norm_eps=1e-12,
            is_decoder=True,  # builds the cross-attention; the calls below say False and see the whole prompt
        )
        self.text_model = BlipTextModel(text, add_pooling_layer=False)
        self.head = nn.Linear(shape.text_width, 1)

    def forward(self, pixels: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        patches = self.vision_model(pixel_values=pixels).last_hidden_state
        words = self.text_model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=patches,
            encoder_attention_mask=torch.ones(patches.shape[:2], dtype=torch.long, device=patches.device),
            is_decoder=False,
        ).last_hidden_state
        return self.head(words[:, 0])[:, 0]


class ImageReward:
    """(raw score - 0.167) / 1.033, usually -2.3 to 2.1; float32 [B], differentiable. Prompts are cut at 35 tokens."""

    differentiable = True

    def __init__(self, network: ImageRewardNetwork, tokenizer: BertTokenizer, image_size: int) -> None:
        self._network = network.requires_grad_(False).eval()
        self._tokenizer = tokenizer
        self._preprocessing = Preprocessing(image_size, image_size, MEAN, STD)

    def __call__(self, images: Images, prompts: Sequence[str]) -> PerExample:
        check_images(images, prompts)
        encoded = self._tokenizer(
            list(prompts), padding="max_length", max_length=PROMPT_TOKENS, truncation=True, return_tensors="pt"
        )
        ids, mask = (cast(Tensor, encoded[key]).to(images.device) for key in ("input_ids", "attention_mask"))
        return (self._network(self._preprocessing(images.float()), ids, mask) - SCORE_MEAN) / SCORE_STD


def load_image_reward(folder: Path, device: torch.device) -> ImageReward:
    """The network in `folder`: config.json, model.safetensors, and bert-base-uncased's tokenizer files.

    Raises `ModelError` naming the file and what is missing or does not fit.
    """
    shape = _read_shape(folder / "config.json")
    weights = folder / "model.safetensors"
    tensors = read_tensors(weights)
    network = ImageRewardNetwork(shape)
    try:
        check_tensors(tensors, {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
    except ValueError as error:
        raise ModelError("reward_invalid", f"{weights}: {error}") from error
    network.load_state_dict(tensors)
    return ImageReward(network.to(device), _read_tokenizer(folder, shape.vocabulary), shape.image_size)


def _read_shape(path: Path) -> BlipShape:
    if not path.is_file():
        raise ModelError("reward_not_found", f"{path}: expected the config.json of a converted ImageReward")
    try:
        return BlipShape.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ModelError("reward_invalid", f"{path}: not the config of a converted ImageReward: {error}") from error


def _read_tokenizer(folder: Path, vocabulary: int) -> BertTokenizer:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt")):
        raise ModelError("reward_not_found", f"{folder}: expected a BERT tokenizer, tokenizer.json or vocab.txt")
    try:
        tokenizer = BertTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise ModelError("reward_invalid", f"{folder}: no BERT tokenizer could be loaded: {error}") from error
    if len(tokenizer) > vocabulary:
        raise ModelError(
            "reward_invalid", f"{folder}: the tokenizer has {len(tokenizer)} tokens, the weights have {vocabulary}"
        )
    return tokenizer
