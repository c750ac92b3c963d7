"""The blocks that a denoiser repeats, compiled: once for each class and shape, and used inside a switch alone.

`torch.compile` of a whole U-Net takes many minutes. Its residual and transformer blocks are most of the work, and those of one shape are one
graph, whatever weights they hold. What is compiled is the class's forward, which is called with the block: so names, weights, hooks
and files of the network stay as they are, and outside the switch its own forward runs, to the bit.

Compiled code adds in another order, and fuses norms with what follows them: float32 differs by its rounding.
"""

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

# A transformer's are those that diffusers names itself (`_repeated_blocks`), where it names any; it leaves a U-Net's residual blocks out.
REPEATED = frozenset(
    {
        "ResnetBlock2D",
        "BasicTransformerBlock",
        "JointTransformerBlock",
        "FluxTransformerBlock",
        "FluxSingleTransformerBlock",
    }
)
Backend = str | Callable[..., Any]
MOST_GRAPHS = 512  # of one forward; torch stops at 8, and runs what comes after them plainly without a word
CACHE = "TORCHINDUCTOR_CACHE_DIR"


@dataclass
class CompiledSwitch:
    """Whether the blocks run as they were compiled."""

    is_on: bool = False

    @contextmanager
    def turned(self, *, on: bool) -> Iterator[None]:
        """Inside as said, and after it as before."""
        before, self.is_on = self.is_on, on
        try:
            yield
        finally:
            self.is_on = before


def repeated_blocks(networks: Iterable[nn.Module]) -> list[nn.Module]:
    """Every block that would be compiled."""
    return [module for network in networks for module in network.modules() if type(module).__name__ in REPEATED]


def compile_blocks(networks: Iterable[nn.Module], backend: Backend = "inductor") -> CompiledSwitch:
    """Give every repeated block a forward that is compiled when it is first asked inside the switch, anew for every shape."""
    torch._dynamo.config.recompile_limit = MOST_GRAPHS
    torch._dynamo.config.accumulated_recompile_limit = MOST_GRAPHS
    switch = CompiledSwitch()
    compiled: dict[type[nn.Module], Callable[..., Any]] = {}
    for block in repeated_blocks(networks):
        kind = type(block)
        if kind not in compiled:
            compiled[kind] = torch.compile(kind.forward, backend=backend, dynamic=False)
        block.forward = MethodType(_choosing(switch, kind.forward, compiled[kind]), block)
    return switch


def _choosing(switch: CompiledSwitch, own: Callable[..., Any], compiled: Callable[..., Any]) -> Callable[..., Any]:
    def forward(block: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return (compiled if switch.is_on else own)(block, *args, **kwargs)

    return forward


def lay_channels_last(networks: Iterable[nn.Module]) -> None:
    """Lay the kernels of frozen convolutions with their channels last: what they give lies so too, and all that follows.

    A GPU's convolutions compute so in half precision, and convert what lies otherwise. It helps where norms and sums between them are compiled
    to take it as it lies; launched one by one they do not (0.8 times as fast). Trained kernels stay as files have them.
    """
    for network in networks:
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d) and not layer.weight.requires_grad:
                layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)


@contextmanager
def counted_graphs(networks: Iterable[nn.Module]) -> Iterator[set[object]]:
    """What would be compiled of the forwards inside: each class of block at each of its shapes, with a gradient and without."""
    found: set[object] = set()

    def note(block: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        weights = tuple((name, one.shape) for name, one in block.named_parameters())
        given = (one for one in (*args, *kwargs.values()) if isinstance(one, Tensor))
        inputs = tuple((one.shape, one.stride(), one.requires_grad) for one in given)
        found.add((type(block), weights, inputs, torch.is_grad_enabled()))

    hooks = [block.register_forward_pre_hook(note, with_kwargs=True) for block in repeated_blocks(networks)]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def missing_compiler(device: torch.device) -> str | None:
    """What this machine lacks to compile for the device; None where it has all."""
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    wanted = [os.environ.get("CXX", "g++")] if device.type == "cpu" else [os.environ.get("CC", "gcc"), "clang"]
    return None if any(map(shutil.which, wanted)) else f"there is no compiler ({' or '.join(wanted)})"


def keep_compiled_in(folder: Path) -> None:
    """Where what is compiled is found again by the next run of this machine; a place that was chosen from outside stays."""
    os.environ.setdefault(CACHE, str(folder))
