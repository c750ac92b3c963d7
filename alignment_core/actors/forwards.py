"""How the networks of a run are asked: in its precision, and by recordings of their kernels where there are some (`replay`)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from alignment_core.actors.arithmetic import autocast_to, half_layers_in, strict_float32
from alignment_core.actors.replay import Recorder, Recordings
from alignment_core.diffusion.path import Path
from alignment_core.shapes import Latents, Times


@runtime_checkable
class DenoiserFamily(Protocol):
    """What actors and methods need to know of a model family."""

    @property
    def path(self) -> Path: ...

    @property
    def device(self) -> torch.device: ...

    def predict(self, denoiser: nn.Module, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents: ...


class Forwards:
    """Predictions of any network of a family, float32 whatever they are computed in."""

    def __init__(self, family: DenoiserFamily, autocast: Callable[[], AbstractContextManager[object]]) -> None:
        self._family = family
        self.autocast = autocast
        self._recordings: Recordings | None = None

    @contextmanager
    def computing_in(self, dtype: torch.dtype, network: nn.Module) -> Iterator[None]:
        """Inside, all networks compute in `dtype`: float32 strictly, halves by autocast; no weight is changed for good.

        `network` is the one whose layers may hold half precision themselves.
        """
        before, self.autocast = self.autocast, lambda: autocast_to(dtype, self._family.device)
        recordings, self._recordings = self._recordings, None  # they compute in what they were recorded in
        try:
            with half_layers_in(dtype, network), strict_float32():
                yield
        finally:
            self.autocast, self._recordings = before, recordings

    def record_with(self, recorder: Recorder, trained: Sequence[nn.Parameter]) -> None:
        """Record what `predict_again` is asked once for each shape, and replay it from then on."""
        self._recordings = Recordings(recorder, trained)

    def forget_recordings(self) -> None:
        """Give back the memory that they hold; what is asked next is recorded anew."""
        if self._recordings is not None:
            self._recordings.forget()

    def take_trouble(self) -> str | None:
        """Why something could not be recorded, and is run plainly; said once."""
        return None if self._recordings is None else self._recordings.take_trouble()

    def predict(self, network: nn.Module, x_t: Latents, times: Times, conditioning: dict[str, Tensor]) -> Latents:
        """The prediction by the network's own forward."""
        with self.autocast():
            return self._family.predict(network, x_t, times, conditioning).float()

    def predict_again(
        self,
        name: str,
        network: nn.Module,
        x_t: Latents,
        times: Times,
        conditioning: dict[str, Tensor],
        *,
        is_trained: bool,
    ) -> Latents:
        """The prediction of a network that is asked at every step: recorded, where that is wanted.

        With the gradient of what is trained, where there are any; not with that of inputs, of which none is recorded.
        """
        if self._recordings is None or x_t.requires_grad:
            return self.predict(network, x_t, times, conditioning)
        names = sorted(conditioning)

        def predict(x_t: Tensor, times: Tensor, *values: Tensor) -> Tensor:
            return self._family.predict(network, x_t, times, dict(zip(names, values, strict=True))).float()

        inputs = [x_t, times, *(conditioning[key] for key in names)]
        with self.autocast():
            with_gradient = is_trained and torch.is_grad_enabled()
            return self._recordings.predict(name, predict, inputs, with_gradient=with_gradient)
