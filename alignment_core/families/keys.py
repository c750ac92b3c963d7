"""What other tools call the weights of a family: one table a family, read by every export.

A family that is added brings a module `<family>_keys.py` with a `FamilyKeys`, and a case in `exports/tables.py`. Its two
functions are pure: weights of one component under the names of its diffusers folder go in, the same weights come out under
the other names, joined or transposed where the other tool keeps them so. Where a family has no such names, there is None.
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

ToOriginal = Callable[[str, Mapping[str, Tensor], ComponentConfig], dict[str, Tensor]]
"""(component, weights, config) -> weights under the keys of the single file, its prefix included."""


@dataclass(frozen=True)
class FamilyKeys:
    """A family's tables, and what a file's header calls it."""

    family: ModelFamily
    components: tuple[str, ...]
    """What a single file holds, the denoiser first. Components that a folder lacks are left out."""
    to_kohya: ToKohya | None
    to_original: ToOriginal | None
    architecture: Callable[[ComponentConfig], str]
    """`modelspec.architecture` of the denoiser with this config, by https://github.com/Stability-AI/ModelSpec."""
    base_version: Callable[[ComponentConfig], str]
    """`ss_base_model_version`, by which kohya's scripts and the UIs sort LoRAs."""
