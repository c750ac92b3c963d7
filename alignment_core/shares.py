"""Tensors of which each process may hold a share (`torch.distributed.tensor`), and of which all is wanted or one's own part.

What is whole in every process passes through unchanged, so that callers need not know.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """All of it; every process asks."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_in_first(tensor: Tensor) -> Tensor:
    """All of it on the CPU of the first process, and nothing in the others, whose memory it would fill; every process asks."""
    if not isinstance(tensor, DTensor):
        return tensor
    gathered = tensor.full_tensor()
    return gathered.cpu() if dist.get_rank() == 0 else torch.empty(0)


def share_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's share of a whole tensor, where `like` lies in shares; nothing is sent, and no more is read."""
    if not isinstance(like, DTensor):
        return tensor
    return distribute_tensor(tensor, like.device_mesh, like.placements, src_data_rank=None)


def local(tensor: Tensor) -> Tensor:
    """What this process holds of it; changing it changes the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
