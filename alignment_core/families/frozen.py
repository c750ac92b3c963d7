"""A network that is used and not trained."""

import torch
from torch import nn


def frozen(module: nn.Module, device: torch.device) -> nn.Module:
    """The network on `device`, without gradients and without dropout."""
    return module.requires_grad_(False).eval().to(device)
