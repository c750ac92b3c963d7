"""The denoiser's layers by what they work on: how many places (latents, patches, words) of an image pass through each.

Where a layer stands, its name in a diffusers folder says: blocks of a U-Net halve the side at each level, blocks of a transformer
see all patches, the text, or both.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from alignment_core.model_files import ModelReport
from alignment_core.spec.families import FAMILIES, FamilyName

Stream = Literal["image", "text", "both", "one"]
_LEVEL = re.compile(r"(down|up)_blocks\.(\d+)\.")
_OF_TEXT = ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "context_embedder")
_ONCE = ("time_embed", "time_text_embed", "time_emb_proj", "time_embedding", "add_embedding", "norm_out.linear")


@dataclass(frozen=True)
class Layer:
    """A linear layer or a convolution, and the places that pass through it for one image."""

    name: str
    into: int
    """Channels."""
    out: int
    numel: int
    places: int
    is_linear: bool
    attended: int = 0
    """Where it makes the queries of attention: the places that each of them looks at."""

    @property
    def flops(self) -> int:
        """Of one forward of one image, a multiply-add as 2; those of the attention that it asks in too."""
        return 2 * self.places * (self.numel + 2 * self.attended * self.out)


def layers_of(model: ModelReport, family: FamilyName, side_pixels: int) -> tuple[Layer, ...]:
    """Every layer of the denoiser, for images of this side; none where the files have not been read."""
    read = _unet if FAMILIES[family].denoiser == "unet" else _transformer
    return tuple(read(model, family, side_pixels // model.latent_stride))


def _unet(model: ModelReport, family: FamilyName, side: int) -> Iterator[Layer]:
    shapes = model.layers or {}
    words = model.clip_tokens or FAMILIES[family].text_lengths[0]
    levels = 1 + max((int(found[2]) for name in shapes if (found := _LEVEL.match(name))), default=0)
    for name, shape in shapes.items():
        level = _level(name, levels)
        places = max(1, side // 2**level) ** 2
        crosses = name.endswith(("attn2.to_k", "attn2.to_v"))
        of_query = words if name.endswith("attn2.to_q") else places if name.endswith("to_q") else 0
        yield _layer(name, shape, 1 if _is_once(name) else words if crosses else places, of_query)


def _level(name: str, levels: int) -> int:
    """How often the side has been halved where the layer works; those that halve or double work on what comes out."""
    found = _LEVEL.match(name)
    if found is None:
        return levels - 1 if name.startswith("mid_block") else 0
    index = int(found[2])
    if found[1] == "down":
        return index + ("downsamplers" in name)
    return levels - 1 - index - ("upsamplers" in name)


def _transformer(model: ModelReport, family: FamilyName, side: int) -> Iterator[Layer]:
    facts = FAMILIES[family]
    patch = max(1, (model.resolution_unit or 2 * model.latent_stride) // model.latent_stride)
    image, text = (side // patch) ** 2, text_places(family, model)
    for name, shape in (model.layers or {}).items():
        match _stream(name):
            case "image":
                places = image
            case "text":
                places = text
            case "both":
                places = image + text
            case "one":
                places = 1
        asks = name.endswith(("to_q", "add_q_proj"))
        alone = facts.denoiser == "transformer" and ".attn2." in name
        yield _layer(name, shape, places, (image if alone else image + text) if asks else 0)


def text_places(family: FamilyName, model: ModelReport) -> int:
    """Words that the transformer sees: SD 3 has those of CLIP before those of T5, FLUX.1 those of T5 alone."""
    lengths = FAMILIES[family].text_lengths
    if family == "flux":
        return lengths[-1]
    return (model.clip_tokens or lengths[0]) + lengths[-1]  # zeros stand where an SD 3 without T5 has its words


def _stream(name: str) -> Stream:
    if _is_once(name) or re.search(r"norm\w*\.linear$", name):
        return "one"
    if any(part in name for part in _OF_TEXT) or "ff_context" in name:
        return "text"
    return "both" if name.startswith("single_transformer_blocks") else "image"


def _is_once(name: str) -> bool:
    return any(part in name for part in _ONCE)


def _layer(name: str, shape: tuple[int, ...], places: int, attended: int) -> Layer:
    return Layer(name, shape[1], shape[0], math.prod(shape), places, len(shape) == 2, attended)
