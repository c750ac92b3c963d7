"""What a backward can make anew of what it has is not kept for it: outputs of norms and activations, which are cheap to make.

Autograd keeps the input of every operation whose derivative reads it. Behind a group norm stand a SiLU and a convolution, which
keep the norm's output and the SiLU's beside the norm's own input, of which both follow; behind a layer norm stands a LoRA, and
GEGLU keeps a half and its activation. And a convolution keeps an input that only the derivative of frozen weights would read.
The layers here say of what they give how it is made, and where autograd would keep it, they keep that instead. The operations,
and so the numbers, are the same to the bit. Names, weights and files of the layers stay as they are.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from types import MethodType

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU, GELU
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from alignment_core.actors.working_copies import as_held, held

_AGAIN = "made_again"  # on a tensor: the `Again` that makes it


class Again:
    """A tensor as it is made anew, `make(of)`; there from its first use in a backward to its last."""

    def __init__(self, make: Callable[[Tensor], Tensor], of: "Tensor | Again") -> None:
        self._make, self._of = make, of
        self._num_uses = self._num_left = 0
        self._made: Tensor | None = None
        self._autocast = _autocast_now(of.device)
        self.device = of.device

    def used(self) -> "Again":
        """Itself, to be asked once more in each backward."""
        if self._num_uses == 0 and isinstance(self._of, Again):
            self._of.used()
        self._num_uses += 1
        return self

    @torch.no_grad()
    def __call__(self) -> Tensor:
        if self._made is None:
            with self._autocast():
                self._made = self._make(self._of() if isinstance(self._of, Again) else self._of)
            self._num_left = self._num_uses
        made, self._num_left = self._made, self._num_left - 1
        if self._num_left == 0:
            self._made = None
        return made


def _autocast_now(device: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """As it is now; a backward runs outside of it."""
    if not torch.is_autocast_enabled(device.type):
        return nullcontext
    return partial(torch.autocast, device.type, torch.get_autocast_dtype(device.type), cache_enabled=False)


def made(y: Tensor, make: Callable[[Tensor], Tensor], of: Tensor) -> Tensor:
    """`y`, which says from now on that it is `make(of)`."""
    if y.requires_grad and _may_keep():
        setattr(y, _AGAIN, Again(make, again_of(of) or of))
    return y


def again_of(x: Tensor) -> Again | None:
    """How `x` is made, where it says so."""
    return getattr(x, _AGAIN, None)


def keeping_how(x: Tensor) -> AbstractContextManager[object]:
    """Inside, what would keep `x` keeps how it is made, where `x` says so."""
    again = again_of(x)
    if again is None or not _may_keep():
        return nullcontext()
    return _instead(x, lambda kept: partial(_shaped, again.used(), kept.shape))


def keeping_shape(x: Tensor) -> AbstractContextManager[object]:
    """Inside, what would keep `x`, and reads its shape alone, keeps that."""
    if not _may_keep():
        return nullcontext()
    return _instead(x, lambda kept: partial(torch.empty_strided, *_layout(kept), dtype=kept.dtype, device=kept.device))


def _instead(x: Tensor, keep: Callable[[Tensor], Callable[[], Tensor]]) -> AbstractContextManager[object]:
    return saved_tensors_hooks(partial(_pack, keep, x.data_ptr(), x.numel()), _unpack)


def _pack(
    keep: Callable[[Tensor], Callable[[], Tensor]], place: int, numel: int, kept: Tensor
) -> Tensor | Callable[[], Tensor]:
    if kept.data_ptr() == place and kept.numel() == numel:
        return keep(kept)
    return kept if kept.is_leaf else kept.detach()  # an output of the operation that keeps it would hold itself


def _unpack(kept: Tensor | Callable[[], Tensor]) -> Tensor:
    return kept if isinstance(kept, Tensor) else kept()


def _shaped(again: Again, shape: torch.Size) -> Tensor:
    return again().reshape(shape)


def _layout(x: Tensor) -> tuple[torch.Size, tuple[int, ...]]:
    return x.shape, x.stride()


def _may_keep() -> bool:
    """A compiler decides by itself what it keeps."""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


# --- layers --------------------------------------------------------------------------------------------------------


def remake(network: nn.Module) -> None:
    """Let the layers of a network say how their outputs are made, once it is settled what is trained.

    Not where blocks are computed again as a whole (`enable_gradient_checkpointing`), which keeps less than this and by the same means.
    """
    for layer in network.modules():
        forward = _forward_of(layer)
        if forward is not None:
            layer.forward = MethodType(forward, layer)


def _forward_of(layer: nn.Module) -> Callable[..., Tensor] | None:
    kind = type(layer)
    if kind is nn.GroupNorm:
        return _group_norm
    if kind is nn.LayerNorm:
        return _layer_norm
    if isinstance(layer, nn.SiLU) and kind is nn.SiLU and not layer.inplace:
        return _silu
    if kind is GEGLU:
        return _geglu
    if kind is GELU:
        return _gelu
    if isinstance(layer, nn.Conv2d) and kind is nn.Conv2d and layer.padding_mode == "zeros":
        return _convolution
    if isinstance(layer, nn.Linear) and kind is nn.Linear and layer.weight.requires_grad:
        return _linear
    return None


def _group_norm(layer: nn.GroupNorm, x: Tensor) -> Tensor:
    return _normed(x, partial(_grouped, groups=layer.num_groups, weight=layer.weight, bias=layer.bias, eps=layer.eps))


def _grouped(x: Tensor, *, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return F.group_norm(x, groups, weight, bias, eps)


def _layer_norm(layer: nn.LayerNorm, x: Tensor) -> Tensor:
    shape = list(layer.normalized_shape)
    return _normed(
        x, partial(F.layer_norm, normalized_shape=shape, weight=layer.weight, bias=layer.bias, eps=layer.eps)
    )


def _normed(x: Tensor, norm: Callable[[Tensor], Tensor]) -> Tensor:
    if x.is_cuda and torch.is_autocast_enabled("cuda"):
        x = in_float32(x)
    with keeping_how(x):
        return made(norm(x), norm, x)


def _silu(_: nn.SiLU, x: Tensor) -> Tensor:
    with keeping_how(x):
        return made(F.silu(x), F.silu, x)


def _gelu(layer: GELU, x: Tensor) -> Tensor:
    h = layer.proj(x)
    return made(layer.gelu(h), layer.gelu, h)


def _geglu(layer: GEGLU, x: Tensor) -> Tensor:
    h, gate = layer.proj(x).chunk(2, dim=-1)
    activated = made(layer.gelu(gate), layer.gelu, gate)
    with keeping_how(activated):
        return made(h * activated, partial(torch.mul, h.detach()), activated)


def _convolution(layer: nn.Conv2d, x: Tensor) -> Tensor:
    x = as_autocast_reads(x)
    with keeping_how(x) if layer.weight.requires_grad else keeping_shape(x):
        weight, bias = as_held(layer.weight), held(layer.bias)
        return F.conv2d(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    x = as_autocast_reads(x)
    with keeping_how(x):
        return F.linear(x, as_held(layer.weight), held(layer.bias))


def as_autocast_reads(x: Tensor) -> Tensor:
    """What autocast makes of the input of a product, made before it: so that it is known how."""
    if not torch.is_autocast_enabled(x.device.type) or x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return x
    return converted(x, torch.get_autocast_dtype(x.device.type))


def converted(x: Tensor, dtype: torch.dtype) -> Tensor:
    """`x.to(dtype)`, which says how it is made where `x` does."""
    if x.dtype == dtype:
        return x
    low = x.to(dtype)
    return low if again_of(x) is None else made(low, partial(torch.Tensor.to, dtype=dtype), x)


def in_float32(x: Tensor) -> Tensor:
    """As autocast has the input of a norm on a GPU; made anew from the half, which is what is kept."""
    return x if x.dtype == torch.float32 else made(x.float(), torch.Tensor.float, x)
