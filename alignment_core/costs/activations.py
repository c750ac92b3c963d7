"""What a forward of one image leaves behind for its backward, and what it takes without one, counted by the layer.

Autograd keeps what the derivative of each operation reads. In a U-Net that follows from its blocks: a residual block's
convolution has before it a group norm and a SiLU, which keep their inputs; attention keeps queries, keys, values and its
output; GEGLU keeps both halves and their product. A layer that is itself trained, or has a LoRA, keeps its own input. Of these
what norms and activations give is remade (`actors/remade.py`), but in blocks that are computed again as a whole.
The counts were taken of diffusers 0.42's networks at their published sizes, tensor by tensor, without weights.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from alignment_core.costs.layers import Layer
from alignment_core.spec.families import FAMILIES, FamilyName

_OF_UNET = re.compile(r"(down_blocks|mid_block|up_blocks)\.")
_SKIPS = re.compile(r"conv_in$|down_blocks\.0\.resnets\.\d+\.conv2$")
_UNIT = re.compile(r".*?(resnets\.\d+|transformer_blocks\.\d+)(?=\.)")


# Times what a block keeps: gradients of what is between its layers stand beside it. Measured on the demo's models (`benchmarks/memory.py`);
# a LoRA keeps less and makes as many.
RECOMPUTED_LORA, RECOMPUTED_FULL = 1.35, 1.1
# The same where norms and activations alone are made anew: what stands beside the rest while the largest block goes back, of what it would
# keep if it kept all. A transformer's block has little that is made anew.
BACKWARD_UNET, BACKWARD_TRANSFORMER = 0.9, 0.25


@dataclass(frozen=True)
class Kept:
    """What decides which inputs are kept."""

    full: bool
    """Whether every weight is trained."""
    adapted: AbstractSet[str] = frozenset()
    """Else the layers that have a LoRA."""
    norms_queries: bool = False
    """Whether queries and keys are normalised."""
    rank: int = 0
    """Of the LoRA: between its factors it keeps so many numbers a place."""
    remade: bool = False
    """Whether outputs of norms and activations are made anew, and a frozen convolution keeps no input."""

    def own(self, layer: Layer) -> bool:
        """Whether the layer's own input is read by a gradient of weights."""
        return self.full or layer.name in self.adapted

    def between(self, layer: Layer) -> int:
        """Between the factors of the layer's LoRA."""
        return self.rank if layer.name in self.adapted else 0


def kept_elements(layers: Iterable[Layer], family: FamilyName, kept: Kept) -> int:
    """Numbers that one image's forward keeps."""
    of_layer = _of_unet if FAMILIES[family].denoiser == "unet" else _of_transformer
    return sum(layer.places * (of_layer(layer, kept) + kept.between(layer)) for layer in layers)


def remaking_elements(layers: Sequence[Layer], family: FamilyName, kept: Kept) -> int:
    """Beside what is kept, where outputs of norms and activations are made anew: those of the largest block, and its gradients."""
    units, everything = _units(layers), replace(kept, remade=False)
    largest = max((kept_elements(unit, family, everything) for name, unit in units.items() if name), default=0)
    share = BACKWARD_UNET if FAMILIES[family].denoiser == "unet" else BACKWARD_TRANSFORMER
    return round(share * largest)


def checkpointed_elements(layers: Sequence[Layer], family: FamilyName, kept: Kept) -> int:
    """With gradient checkpointing, beside what comes into the blocks: what the largest takes while it is computed again."""
    units = _units(layers)
    rest = units.pop("", [])
    largest = max((kept_elements(unit, family, kept) for unit in units.values()), default=0)
    again = RECOMPUTED_FULL if kept.full else RECOMPUTED_LORA
    return round(again * largest) + kept_elements(rest, family, kept)


def stream_elements(layers: Sequence[Layer]) -> int:
    """What comes into the blocks, which gradient checkpointing keeps: an image's numbers, and the text's where it is carried along."""
    enters = ("conv1", "attn.to_q", "attn1.to_q", "add_q_proj")
    return sum(
        layer.places * layer.into
        for name, unit in _units(layers).items()
        if name
        for layer in unit
        if layer.name.endswith(enters)
    )


def drawing_elements(layers: Iterable[Layer]) -> int:
    """Numbers that live in the widest moment of a forward of one image without gradients, and a U-Net's skips of its largest maps."""
    widest = skips = 0
    for layer in layers:
        widest = max(widest, layer.places * _while_drawn(layer))
        skips += layer.places * layer.out * (_SKIPS.match(layer.name) is not None)
    return widest + skips


def _while_drawn(layer: Layer) -> int:
    """In a feed forward what its first layer gives, and as much that the activation makes of it (GEGLU twice a half). Beside it stand what came
    and its norm, and what came into the block; where text goes along, what attention gave too."""
    if layer.name.endswith(("net.0.proj", "proj_mlp")):
        return 2 * layer.out + (3 if _OF_UNET.match(layer.name) else 4) * layer.into
    return layer.into + layer.out


def _units(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """The blocks that are computed again as a whole; what is in none under the empty name."""
    units: dict[str, list[Layer]] = defaultdict(list)
    for layer in layers:
        units[unit_of(layer) or ""].append(layer)
    return units


def unit_of(layer: Layer) -> str | None:
    """The name of the block that a layer is of, which the network repeats; None outside of all."""
    found = _UNIT.match(layer.name)
    return None if found is None else found[0]


def _of_unet(layer: Layer, kept: Kept) -> int:
    """Numbers a place. Where nothing is remade, a convolution keeps its input even where its weights are frozen."""
    name, into, out, own = layer.name, layer.into, layer.out, layer.into * kept.own(layer)
    if re.search(r"resnets\.\d+\.conv[12]$", name) or name == "conv_out":
        return into if kept.remade else 3 * into  # norm; SiLU, convolution
    if name.endswith(("to_k", "to_v")):
        return out
    if name.endswith("to_q"):
        # norm; queries, and the output of attention, which `to_out` reads
        return into + (0 if kept.remade else own) + 2 * out
    if name.endswith("ff.net.0.proj"):
        return into + out + (0 if kept.remade else own + out // 2)  # norm; GEGLU's halves, and the activated one
    if name.endswith("ff.net.2"):
        return 0 if kept.remade else own
    if name.endswith("proj_in"):
        return into + (own if layer.is_linear else 0 if kept.remade else into)
    if name.endswith(("proj_out", "samplers.0.conv")):
        return own if layer.is_linear or kept.remade else into
    if name.endswith(("to_out.0", "conv_shortcut", "time_emb_proj")):
        return 0  # kept above, or a single place
    return own


def _of_transformer(layer: Layer, kept: Kept) -> int:
    """Numbers a place. Where modulation is trained too, what it multiplies is kept: after each norm, and before each residual."""
    name, into, out, own = layer.name, layer.into, layer.out, layer.into * kept.own(layer)
    modulated = into if kept.full else 0
    normed = out * (1 + kept.full) if kept.norms_queries else 0
    if name.endswith("attn2.to_q"):
        return own + 2 * out + normed  # behind the norm of the first attention
    if name.endswith(("to_q", "add_q_proj")):
        return into + own + modulated + 2 * out + normed
    if name.endswith(("to_k", "add_k_proj")):
        return out + normed
    if name.endswith(("to_v", "add_v_proj")):
        return out
    if name.endswith("net.0.proj"):
        return into + own + modulated + out
    if name.endswith("proj_mlp"):
        return out  # its input is that of attention
    if name.endswith("net.2"):
        return (0 if kept.remade else own) + (out if kept.full else 0)
    if name.endswith(("to_out.0", "to_add_out", "proj_out")):
        return own + (out if kept.full else 0)
    return own
