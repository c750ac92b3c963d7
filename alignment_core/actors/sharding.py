"""Networks whose weights lie in shares on the processes of a run: FSDP2 (`torch.distributed.fsdp.fully_shard`).

A forward brings the weights of a block together on every process and lets them go after it, so all processes make the same
forwards in the same order. What an adapter trains stays whole on each: it is small, float32 beside a base in half precision, and so
it can be swapped, saved and loaded as in one process. Only its gradients are averaged here, once an optimiser step.
"""

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch
import torch.distributed as dist
from diffusers import ModelMixin
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

MESSAGE = 2**25  # numbers of gradients: enough for all of a LoRA, and little memory beside a fine-tune's


def shard(network: ModelMixin, mesh: DeviceMesh) -> None:
    """Share out the weights block by block, in place, but for those of adapters.

    Weights are let go after every forward, the outermost ones too: a network whose shares were changed must not answer with what
    it still holds.
    """
    warnings.filterwarnings(
        "ignore", message="FSDP2-wrapped module .* returned a view tensor"
    )  # nobody adds to one in place
    kept = {parameter for name, parameter in network.named_parameters() if ".lora_" in name}
    for module in [*_blocks(network), network]:
        fully_shard(module, mesh=mesh, reshard_after_forward=True, ignored_params=kept)


def _blocks(network: ModelMixin) -> list[nn.Module]:
    """What is brought together at a time, each after those inside it: what a network calls one after the other, and in a U-Net's
    blocks the transformer blocks, of which SDXL has ten in a row and half of its weights in one up block.
    """
    kinds = network._repeated_blocks or ()  # by diffusers, which compiles them one by one
    inner = [module for module in network.modules() if type(module).__name__ in kinds]
    outer = [block for child in network.children() if isinstance(child, nn.ModuleList) for block in child]
    return list(dict.fromkeys([*inner, *outer]))


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """The mean over the processes, in few messages; of parameters that every process holds whole."""
    for gradients in _messages([parameter.grad for parameter in parameters if parameter.grad is not None]):
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        flat /= dist.get_world_size()
        for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def _messages(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """As they are sent: neighbours together, and a message ended by the one that fills it."""
    message, size = list[Tensor](), 0
    for tensor in tensors:
        message.append(tensor)
        size += tensor.numel()
        if size >= MESSAGE:
            yield message
            message, size = [], 0
    if message:
        yield message


def gathered(network: ModelMixin, plain: type[nn.Module]) -> ModelMixin | None:
    """A copy with all weights, on the CPU of the first process and None elsewhere; every process asks.

    `plain` is the network's class before it was sharded.
    """
    weights = get_model_state_dict(network, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not weights:
        return None
    with torch.device("meta"):
        copy = plain.from_config(network.config)  # pyright: ignore[reportAttributeAccessIssue]
    copy.load_state_dict(weights, assign=True)
    return copy


def load_whole(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a network these weights, each process its share."""
    set_model_state_dict(network, dict(weights), options=StateDictOptions(full_state_dict=True))
