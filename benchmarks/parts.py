"""Seconds by part of what is drawn: text encoding, denoising, VAE decode, reward, and the rest."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from benchmarks.step.measuring import clock


@dataclass
class PartSeconds:
    """Seconds by part, where `timing` is open; on a GPU each part is waited for, so the sum is more than a turn takes otherwise."""

    by_part: dict[str, float] = field(default_factory=dict)
    is_open: bool = False
    _began: float = 0.0

    @contextmanager
    def timing(self, networks: Mapping[str, Sequence[nn.Module]]) -> Iterator[None]:
        """Time the forwards of networks, by part."""
        hooks: list[Any] = []
        for part, of_part in networks.items():
            for network in of_part:
                hooks.append(network.register_forward_pre_hook(lambda *_: self._begin()))
                hooks.append(network.register_forward_hook(lambda *_, part=part: self._end(part)))
        self.by_part, self.is_open, began = {}, True, clock()
        try:
            yield
        finally:
            self.is_open = False
            self.by_part["the rest"] = clock() - began - sum(self.by_part.values())
            for hook in hooks:
                hook.remove()

    def timed(self, part: str, call: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """A function whose calls are timed too."""

        def call_and_time(*args: Any) -> Tensor:
            if not self.is_open:
                return call(*args)
            self._begin()
            found = call(*args)
            self._end(part)
            return found

        return call_and_time

    def _begin(self) -> None:
        self._began = clock()

    def _end(self, part: str) -> None:
        self.by_part[part] = self.by_part.get(part, 0.0) + clock() - self._began
