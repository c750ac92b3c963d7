"""A denoiser and the text encoders that read for it as one network, for runs that train both.

Its conditioning holds the tokens of the prompts, and it reads them itself. So each of policy, reference and initial model, which
are this network with other adapters, is told what its own text encoders make of a prompt, whoever asks it and for whatever.
"""

from collections.abc import Callable, Collection, Mapping

import torch
from diffusers import ModelMixin
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignment_core.shapes import Latents, Times

Conditioning = dict[str, Tensor]
Part = ModelMixin | PreTrainedModel
"""A network that can have adapters of PEFT's; both libraries call what they do with them by the same names."""


class ReadingNetwork(nn.Module):
    """`parts` by the pipeline's names, the denoiser first and then the text encoders, whose modules `read` runs.

    `read` adds to a conditioning what the prompts' tokens in it say, and `predict` is told that. What lies in modules whose names
    begin with one of `unheard` is never read, and so cannot be trained.
    """

    def __init__(
        self,
        parts: Mapping[str, Part],
        *,
        read: Callable[[Conditioning], Conditioning],
        predict: Callable[[nn.Module, Latents, Times, Conditioning], Latents],
        unheard: Collection[str] = (),
    ) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.parts = dict(parts)
        self.unheard = tuple(unheard)
        self.read = read
        self._predict = predict

    @property
    def denoiser(self) -> Part:
        """The part that predicts."""
        return next(iter(self.parts.values()))

    @property
    def device(self) -> torch.device:
        return self.denoiser.device

    def forward(self, x_t: Latents, times: Times, conditioning: Conditioning) -> Latents:
        """The prediction at `x_t` for prompts that are read now."""
        return self._predict(self.denoiser, x_t, times, self.read(conditioning))

    def set_adapter(self, name: str) -> None:
        for part in self.parts.values():
            part.set_adapter(name)

    def disable_adapters(self) -> None:
        for part in self.parts.values():
            part.disable_adapters()

    def enable_adapters(self) -> None:
        for part in self.parts.values():
            part.enable_adapters()

    def enable_gradient_checkpointing(self) -> None:
        """Of the denoiser: what a text encoder keeps for 77 tokens is small beside it."""
        assert isinstance(self.denoiser, ModelMixin)
        self.denoiser.enable_gradient_checkpointing()


Denoiser = ModelMixin | ReadingNetwork
"""What a run trains."""


def parts_of(denoiser: Denoiser) -> dict[str, Part]:
    """The networks that have adapters, by what the names of their parameters begin with; "" where there is one."""
    return denoiser.parts if isinstance(denoiser, ReadingNetwork) else {"": denoiser}


def own_name(denoiser: Denoiser, name: str) -> str:
    """The name of a parameter or a module without that of the denoiser it is in: the same whether text encoders are trained or not."""
    if not isinstance(denoiser, ReadingNetwork):
        return name
    return name.removeprefix(f"{next(iter(denoiser.parts))}.")
