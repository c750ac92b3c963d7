"""Half-precision copies of the float32 weights that products read: cast once an optimiser step, and not in every forward.

Autocast rounds a trained weight anew in each forward, a kernel for each of hundreds: a tenth of the launches of a step. The copies here are what it
would make, to the bit, and their gradient goes to the weights through the same conversion. Only linear layers and convolutions have
them: what else has weights, norms above all, computes in float32 under autocast. So has a frozen network: `hold_in_half` leaves nothing to cast.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_COPY = "working_copy"  # on a parameter: its `_Copy`


@dataclass
class _Switch:
    is_on: bool = True


@dataclass
class _Copy:
    half: Tensor
    switch: _Switch
    version: int  # of the weight, when it was rounded

    def is_of(self, weight: Tensor, kind: str) -> bool:
        """Whether autocast would make it of the weight here and now."""
        return (
            self.switch.is_on
            and self.version == weight._version
            and torch.is_autocast_enabled(kind)
            and torch.get_autocast_dtype(kind) == self.half.dtype
        )


def as_held(weight: Tensor) -> Tensor:
    """The weight's copy, where it has one that is right here, or itself; a compiler casts by itself."""
    if torch.compiler.is_compiling():
        return weight
    copy: _Copy | None = getattr(weight, _COPY, None)
    return weight if copy is None or not copy.is_of(weight, weight.device.type) else copy.half


def held(weight: Tensor | None) -> Tensor | None:
    """`as_held` of what a layer may lack."""
    return None if weight is None else as_held(weight)


def products(network: nn.Module) -> Iterator[nn.Linear | nn.Conv2d]:
    """The layers that autocast computes in half precision, input, weights and all."""
    for layer in network.modules():
        match layer:
            case nn.Linear() if type(layer) is nn.Linear:
                yield layer
            case nn.Conv2d() if type(layer) is nn.Conv2d and layer.padding_mode == "zeros":
                yield layer
            case _:
                pass


def hold_in_half(network: nn.Module, dtype: torch.dtype) -> None:
    """Keep the weights of a frozen network's products as autocast would round them; the rest stays as it is."""
    for layer in products(network):
        for weight in layer.parameters(recurse=False):
            assert not weight.requires_grad, "what is trained is kept in float32"
            weight.data = weight.data.to(dtype)


class WorkingCopies:
    """Those of what a network trains. Of weights that were changed and not followed since none is used."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self._switch = _Switch()
        self._weights: list[Tensor] = [weight for layer in products(network) for weight in _trained(layer)]
        with torch.enable_grad():  # autograd hands the gradients of the copies on to the weights
            self._copies = [_Copy(weight.to(dtype), self._switch, weight._version) for weight in self._weights]
        for weight, copy in zip(self._weights, self._copies, strict=True):
            setattr(weight, _COPY, copy)
        for layer in products(network):
            if layer.weight.requires_grad and "forward" not in layer.__dict__:
                layer.forward = MethodType(_forward_of(layer), layer)

    @torch.no_grad()
    def follow(self) -> None:
        """Round the weights anew, in few kernels."""
        if self._copies:
            torch._foreach_copy_([copy.half for copy in self._copies], self._weights)
        for weight, copy in zip(self._weights, self._copies, strict=True):
            copy.version = weight._version

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Inside, weights are cast where they are used."""
        before, self._switch.is_on = self._switch.is_on, False
        try:
            yield
        finally:
            self._switch.is_on = before

    def release(self) -> None:
        """Give their memory back, and cast where weights are used."""
        for weight in self._weights:
            delattr(weight, _COPY)
        self._weights, self._copies = [], []


def _trained(layer: nn.Module) -> Iterable[nn.Parameter]:
    return (weight for weight in layer.parameters(recurse=False) if weight.requires_grad)


def _forward_of(layer: nn.Linear | nn.Conv2d) -> Callable[..., Tensor]:
    return _linear if isinstance(layer, nn.Linear) else _convolution


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    return F.linear(x, as_held(layer.weight), held(layer.bias))


def _convolution(layer: nn.Conv2d, x: Tensor) -> Tensor:
    weight, bias = as_held(layer.weight), held(layer.bias)
    return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)
