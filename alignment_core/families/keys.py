"""What other tools call the weights of a family: one table a family, read by every export.

A family that is added brings a module `<family>_keys.py` with a `FamilyKeys`, and a case in `exports/tables.py`. Its
functions are pure: weights of one component under the names of its diffusers folder go in, the same weights come out under
the other names, joined or transposed where the other tool keeps them so.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

ModelFamily = Literal["sd", "sdxl", "sd3", "flux"]
ComponentConfig = Mapping[str, Any]
"""What the `config.json` of a component holds."""


@dataclass(frozen=True)
class LoraLayer:
    """An update `up @ down * alpha / rank` of one layer, where `rank` is the length of `down`.

    `down` is A, `[r, in]` or of a convolution `[r, in, k, k]`; `up` is B, `[out, r]` or `[out, r, 1, 1]`.
    """

    down: Tensor
    up: Tensor
    alpha: float


LoraLayers = Mapping[str, LoraLayer]
"""By module: `down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q`, or the other tool's name of it."""

ToKohya = Callable[[str, LoraLayers, ComponentConfig], dict[str, LoraLayer]]
"""(component, layers by module, config) -> layers by kohya's name, such as `lora_unet_...`, without `.lora_down.weight`."""


@dataclass(frozen=True)
class OriginalLayer:
    """A layer of the original code: what it is called, and diffusers' layers that stand in it from top to bottom."""

    name: str
    parts: tuple[str, ...]
    is_swapped: bool = False
    """Whether its halves, shift and scale, change places."""


OriginalOf = Callable[[str, ComponentConfig], OriginalLayer]
"""(module, config) -> the original layer that it stands in; raises `ModelError` for one that the original does not have."""

ToOriginal = Callable[[str, Mapping[str, Tensor], ComponentConfig], dict[str, Tensor]]
"""(component, weights, config) -> weights under the keys of the single file, its prefix included."""


@dataclass(frozen=True)
class FamilyKeys:
    """A family's tables, and what a file's header calls it."""

    family: ModelFamily
    components: tuple[str, ...]
    """What a single file holds, the denoiser first. Components that a folder lacks are left out."""
    to_kohya: ToKohya
    to_original: ToOriginal
    architecture: Callable[[ComponentConfig], str]
    """`modelspec.architecture` of the denoiser with this config, by https://github.com/Stability-AI/ModelSpec."""
    base_version: Callable[[ComponentConfig], str]
    """`ss_base_model_version`, by which kohya's scripts and the UIs sort LoRAs."""
    joined: OriginalOf | None = None
    """Of a denoiser whose original joins layers that diffusers keeps apart, and so do kohya's files."""
    implementation: str = "https://github.com/Stability-AI/generative-models"
    """`modelspec.implementation`: the original code."""
