"""Half-precision layers that compute in float32, or in the other half precision, for a while: what rounding is measured by.

A layer's weights are converted while it computes and are what they were after it, so that the whole network is never held twice.
Converting to float32 is exact.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

HALF = (torch.float16, torch.bfloat16)


@contextmanager
def half_layers_in(dtype: torch.dtype, network: nn.Module, exact: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """Inside, every layer of `network` with half-precision weights computes with weights of `dtype`; its own are untouched.

    `exact` has weights as they were before they were rounded, by name, on any device.
    """
    kept: dict[Tensor, Tensor] = {}
    unrounded = dict[Tensor, Tensor]((network.get_parameter(name), weight) for name, weight in (exact or {}).items())

    def convert(layer: nn.Module, _: object) -> None:
        for tensor in _own_tensors(layer):
            if tensor.dtype in HALF and tensor.dtype != dtype and tensor not in kept:
                kept[tensor] = tensor.data
                tensor.data = unrounded.get(tensor, tensor).detach().to(tensor.device, dtype)

    def restore(layer: nn.Module, _: object, __: object) -> None:
        for tensor in _own_tensors(layer):
            if tensor in kept:
                tensor.data = kept.pop(tensor)

    hooks = [
        hook
        for layer in network.modules()
        for hook in (layer.register_forward_pre_hook(convert), layer.register_forward_hook(restore, always_call=True))
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for tensor, own in kept.items():
            tensor.data = own


def _own_tensors(layer: nn.Module) -> list[Tensor]:
    """Those that its forward reads itself; an adapted layer may read those of the layer that it adapts."""
    layers = [layer, layer.get_base_layer()] if isinstance(layer, BaseTunerLayer) else [layer]
    return [tensor for one in layers for tensor in (*one.parameters(recurse=False), *one.buffers(recurse=False))]


def autocast_to(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Autocast to a half precision; to float32 none, also within another."""
    is_half = dtype in HALF
    return torch.autocast(device.type, dtype=dtype if is_half else None, enabled=is_half)


@contextmanager
def strict_float32() -> Iterator[None]:
    """Inside, a GPU rounds no factor of a float32 product to TF32."""
    matmul = torch.backends.cuda.matmul
    conv = torch.backends.cudnn.conv  # pyright: ignore[reportAttributeAccessIssue]  (made at run time)
    before = matmul.fp32_precision, conv.fp32_precision
    matmul.fp32_precision = conv.fp32_precision = "ieee"
    try:
        yield
    finally:
        matmul.fp32_precision, conv.fp32_precision = before
