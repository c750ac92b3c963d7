"""A LoRA layer's forward of our own, behind PEFT's layers, names and files: y = W x + s B (A x).

PEFT's multiplies by a scale of 1, casts its input up where autocast casts it down again, and is switched off by a walk over the
whole network that also says anew what is trained. None of that changes a number, and on a GPU, which waits for the CPU that
launches kernels, much of a step goes into it. So the layers here read one switch, and do what is left.

Where rounding is the same, in any order: on a CPU the sum is PEFT's, to the bit. On a GPU the branch is added inside the
product (`addmm`), in float32 and rounded once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear, LoraLayer
from torch import Tensor, nn

from alignment_core.actors.remade import as_autocast_reads, converted, keeping_how
from alignment_core.actors.working_copies import as_held


@dataclass
class AdapterSwitch:
    """Which adapter the layers add to their base; None for the base alone."""

    adapter: str | None

    @contextmanager
    def turned_to(self, adapter: str | None) -> Iterator[None]:
        """Another one inside, and this one again after, whatever happens."""
        before, self.adapter = self.adapter, adapter
        try:
            yield
        finally:
            self.adapter = before


def switched(denoiser: nn.Module, adapter: str) -> AdapterSwitch | None:
    """Give every LoRA layer the forward of this module; None, and PEFT's stays, where one of them is more than y = W x + s B (A x)."""
    layers = [module for module in denoiser.modules() if isinstance(module, LoraLayer)]
    if not layers or not all(_is_plain(layer, adapter) for layer in layers):
        return None
    switch = AdapterSwitch(adapter)

    def forward(layer: Linear, x: Tensor) -> Tensor:
        if layer.disable_adapters or switch.adapter is None:  # PEFT's own way to switch off still does
            return layer.base_layer(x)
        return lora_linear(layer, x, switch.adapter)

    for layer in layers:
        layer.forward = MethodType(forward, layer)  # pyright: ignore[reportAttributeAccessIssue]
    return switch


def lora_linear(layer: Linear, x: Tensor, adapter: str) -> Tensor:
    """W x + s B (A x)."""
    down, up = (as_held(_weight(part[adapter])) for part in (layer.lora_A, layer.lora_B))
    scale, y = layer.scaling[adapter], layer.base_layer(x)
    if x.is_cuda:
        h = _lowered(x, down)
        return torch.addmm(_as(y, up).flatten(0, -2), h.flatten(0, -2), up.t(), alpha=scale).view_as(y).to(y.dtype)
    branch = F.linear(_lowered(x, down), up)
    return (y + branch if scale == 1 else y + branch * scale).to(y.dtype)


def _lowered(x: Tensor, down: Tensor) -> Tensor:
    """A x, which keeps how x is made where a norm has made it."""
    x = as_autocast_reads(x) if torch.is_autocast_enabled(x.device.type) else converted(x, down.dtype)
    with keeping_how(x):
        return F.linear(x, down)


def _weight(matrix: nn.Module) -> Tensor:
    assert isinstance(matrix, nn.Linear)
    return matrix.weight


def _as(x: Tensor, weight: Tensor) -> Tensor:
    """In the weight's precision, unless autocast chooses one for both."""
    return x if torch.is_autocast_enabled(x.device.type) else x.to(weight.dtype)


def _is_plain(layer: LoraLayer, adapter: str) -> bool:
    return (
        type(layer) is Linear
        and not layer.lora_variant
        and isinstance(layer.lora_dropout[adapter], nn.Identity)
        and layer.lora_B[adapter].bias is None
    )
