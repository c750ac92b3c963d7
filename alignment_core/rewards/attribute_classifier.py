"""Prompt-following by a small classifier: does the image show what the prompt names?

A classifier knows a few attributes (say color and shape), each with values that words or phrases
in a prompt name. For every attribute named in the prompt it gives the probability of that value;
the reward is their mean. The weights are trained elsewhere and loaded from a folder that holds
`config.json` and `model.safetensors`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from alignment_core.spec.attribute_words import CONFIG_FILE, first_mention, why_without_score

WEIGHTS_FILE = "model.safetensors"
UNNAMED = -1


@dataclass(frozen=True)
class ClassifierConfig:
    """What the classifier can name, and its shape.

    `attributes` maps an attribute to its words: `{"color": {"red": "red", "crimson": "red"}}`
    reads "word or phrase in a prompt -> value". The values, in order of first mention, are the
    attribute's classes. `channels` has one entry a convolution; each halves the image.
    """

    image_size: int
    channels: tuple[int, ...]
    attributes: Mapping[str, Mapping[str, str]]

    @classmethod
    def from_dict(cls, data: Any) -> "ClassifierConfig":
        """Checks and reads what `to_dict` wrote. Raises ValueError."""
        expected = {"image_size", "channels", "attributes"}
        if not isinstance(data, dict) or set(data) != expected:
            raise ValueError(f"a classifier config has exactly the keys {sorted(expected)}")
        image_size, channels, attributes = (data["image_size"], data["channels"], data["attributes"])
        if not isinstance(channels, list) or not channels:
            raise ValueError("channels must be a list of one or more widths")
        if not all(isinstance(n, int) and n > 0 for n in (image_size, *channels)):
            raise ValueError("image_size and channels must be positive integers")
        if not isinstance(attributes, dict) or not attributes:
            raise ValueError("attributes must name at least one attribute")
        for attribute, words in attributes.items():
            if not isinstance(words, dict) or len(set(words.values())) < 2:
                raise ValueError(f"attribute {attribute!r} needs words for two or more values")
        return cls(image_size, tuple(channels), attributes)

    def to_dict(self) -> dict[str, Any]:
        """The config as JSON data."""
        return {
            "image_size": self.image_size,
            "channels": list(self.channels),
            "attributes": {name: dict(words) for name, words in self.attributes.items()},
        }

    def values(self, attribute: str) -> list[str]:
        """The classes of `attribute`, in the order of the classifier's outputs."""
        return list(dict.fromkeys(self.attributes[attribute].values()))

    def parse(self, prompt: str) -> dict[str, int]:
        """The class named for each attribute that `prompt` names; the first mention counts.

        Raises ValueError if the prompt names none, because it then has no score.
        """
        named: dict[str, int] = {}
        for attribute, words in self.attributes.items():
            if (word := first_mention(prompt, words)) is not None:
                named[attribute] = self.values(attribute).index(words[word])
        if not named:
            raise ValueError(why_without_score(prompt, self.attributes))
        return named


class AttributeClassifier(nn.Module):
    """A reward model: mean probability of the attribute values that a prompt names.

    `(images [B, 3, H, W] in [0, 1], prompts) -> [B]` float32 in [0, 1], differentiable with
    respect to the images. Images of another size are resized, antialiased, to `image_size`.
    """

    differentiable = True

    def __init__(self, config: ClassifierConfig, name: str = "attribute_classifier") -> None:
        super().__init__()
        self.config = config
        self.name = name
        layers: list[nn.Module] = []
        width = 3
        for channels in config.channels:
            groups = 4 if channels % 4 == 0 else 1
            layers += [
                nn.Conv2d(width, channels, 3, padding=1),
                nn.GroupNorm(groups, channels),
                nn.SiLU(),
                nn.MaxPool2d(2),
            ]
            width = channels
        self.features = nn.Sequential(*layers, nn.Flatten())
        side = config.image_size // 2 ** len(config.channels)
        if side < 1:
            raise ValueError(f"{len(config.channels)} halvings do not fit in {config.image_size} px")
        self.heads = nn.ModuleDict(
            {
                attribute: nn.Linear(width * side * side, len(config.values(attribute)))
                for attribute in config.attributes
            }
        )

    def forward(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """The score of each image for its prompt: float32 [B]."""
        named = self._named(images, prompts)
        total = count = torch.zeros(len(images), device=images.device)
        for attribute, logits in self.logits(images).items():
            value = torch.tensor([row.get(attribute, UNNAMED) for row in named], device=images.device)
            is_named = (value != UNNAMED).float()
            probability = logits.softmax(dim=-1).gather(1, value.clamp(min=0)[:, None])[:, 0]
            total, count = total + is_named * probability, count + is_named
        return total / count

    def logits(self, images: Tensor) -> dict[str, Tensor]:
        """Unnormalised log-probabilities of each attribute's values: float32 [B, values]."""
        size = (self.config.image_size, self.config.image_size)
        images = images.float()
        if images.shape[-2:] != size:
            images = F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        hidden = self.features(images * 2 - 1)
        return {attribute: head(hidden) for attribute, head in self.heads.items()}

    @torch.no_grad()
    def predict(self, images: Tensor) -> dict[str, Tensor]:
        """The most likely value of every attribute: int64 [B] each, named by the prompt or not."""
        return {attribute: logits.argmax(dim=-1) for attribute, logits in self.logits(images).items()}

    def correct(self, images: Tensor, prompts: Sequence[str]) -> list[dict[str, bool]]:
        """For each image, whether each attribute that its prompt names is predicted right."""
        named = self._named(images, prompts)
        predicted = {attribute: p.tolist() for attribute, p in self.predict(images).items()}
        return [
            {attribute: predicted[attribute][row] == value for attribute, value in values.items()}
            for row, values in enumerate(named)
        ]

    def accuracy(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Prompt-following: each image's share of named attributes predicted right, [B]."""
        shares = [sum(row.values()) / len(row) for row in self.correct(images, prompts)]
        return torch.tensor(shares, dtype=torch.float32)

    def _named(self, images: Tensor, prompts: Sequence[str]) -> list[dict[str, int]]:
        if len(images) != len(prompts):
            raise ValueError(f"{len(images)} images for {len(prompts)} prompts")
        return [self.config.parse(prompt) for prompt in prompts]

    def save(self, folder: Path) -> None:
        """Writes `config.json` and `model.safetensors` into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        config = json.dumps(self.config.to_dict(), indent=2) + "\n"
        (folder / CONFIG_FILE).write_text(config)
        state = {key: value.detach().contiguous() for key, value in self.state_dict().items()}
        save_file(state, folder / WEIGHTS_FILE)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> "AttributeClassifier":
        """The frozen classifier in `folder`. Raises ValueError naming what is missing or wrong."""
        folder = Path(folder)
        for required in (CONFIG_FILE, WEIGHTS_FILE):
            if not (folder / required).is_file():
                raise ValueError(f"no {required} in classifier folder {folder}")
        try:
            config = ClassifierConfig.from_dict(json.loads((folder / CONFIG_FILE).read_text()))
            classifier = cls(config, name=folder.name)
            classifier.load_state_dict(load_file(folder / WEIGHTS_FILE), strict=True)
        except (ValueError, SafetensorError, RuntimeError) as error:
            raise ValueError(f"cannot load classifier folder {folder}: {error}") from error
        return classifier.requires_grad_(False).eval().to(device)
