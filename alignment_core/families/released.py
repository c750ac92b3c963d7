"""Networks that are needed now and then: kept on the host in between, so that the accelerator is free for what trains."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

import torch
from torch import Tensor, nn


class Released:
    """Frozen networks that stay on `device` until they are released; from then on they are there while they are used, and no longer.

    Nobody changes their weights, so the host keeps them and leaving copies nothing back: the bits stay those that were loaded.
    """

    def __init__(self, modules: Sequence[nn.Module], device: torch.device) -> None:
        self._modules = modules
        self._device = device
        self._on_host: list[Tensor] | None = None
        self._num_uses = 0
        self._using = RLock()  # a thread that reads ahead may encode anew what was lost

    def release(self) -> None:
        """Leave the device."""
        self._on_host = [one.data.to("cpu") for one in self._tensors()]
        self._put(self._on_host)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """On the device inside."""
        with self._using:
            if self._on_host is not None and self._num_uses == 0:
                self._put([one.to(self._device) for one in self._on_host])
            self._num_uses += 1
            try:
                yield
            finally:
                self._num_uses -= 1
                if self._on_host is not None and self._num_uses == 0:
                    self._put(self._on_host)

    @property
    def away(self) -> Sequence[Tensor]:
        """What waits on the host just now."""
        return () if self._on_host is None or self._num_uses else self._on_host

    def _tensors(self) -> list[Tensor]:
        return [one for module in self._modules for one in (*module.parameters(), *module.buffers())]

    def _put(self, values: Sequence[Tensor]) -> None:
        for one, value in zip(self._tensors(), values, strict=True):
            one.data = value
