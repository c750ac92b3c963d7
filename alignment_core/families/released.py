"""Networks that are needed now and then: kept on the CPU in between, so that the accelerator is free for what trains."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn


class Released:
    """Frozen networks on `device` until they are released; from then on they are there while they are used, and no longer."""

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        self._modules = modules
        self._device = device
        self._is_released = False
        self._move(device)

    def release(self) -> None:
        """Leave the device."""
        self._is_released = True
        self._move(torch.device("cpu"))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """On the device inside."""
        self._move(self._device)
        try:
            yield
        finally:
            if self._is_released:
                self._move(torch.device("cpu"))

    def _move(self, device: torch.device) -> None:
        for module in self._modules:
            module.to(device)
