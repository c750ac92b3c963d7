"""Prompts that are read once: an online method asks for the same ones in every epoch, and a frozen text encoder says the same of them.

The last bits of an encoding may depend on what else is in its batch. So every prompt is read by itself, at whatever visit and in
whatever process: what is kept is what reading it again would give, and a run that goes on gives what one would that never stopped.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor

KEPT_BYTES = 2**30  # on the host: of SD 1.5 some 4,500 prompts, of SDXL 1,700, of FLUX.1 130

Conditioning = dict[str, Tensor]


class KnownPrompts:
    """`encode` of prompts, `[B, ...]` by name, asked once for each; of text encoders that are trained that is their tokens.

    The first that fit into `kept_bytes` stay. Prompts come epoch by epoch: of more than fit, the least recently used would go just
    before they are wanted, and this way as large a share is known as there is room for. `reading` is entered for all that are read
    in one call, so that encoders which wait on the host come once.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str]], Conditioning],
        reading: Callable[[], AbstractContextManager[object]],
        *,
        device: torch.device,
        kept_bytes: int = KEPT_BYTES,
    ) -> None:
        self._encode, self._reading, self._device = encode, reading, device
        self._room = kept_bytes
        self._kept: dict[str, Conditioning] = {}

    def __call__(self, prompts: Sequence[str]) -> Conditioning:
        """On the device; a prompt that is there several times is read once."""
        distinct = dict.fromkeys(prompts)
        found = {prompt: self._kept[prompt] for prompt in distinct if prompt in self._kept}
        if unknown := [prompt for prompt in distinct if prompt not in found]:
            with self._reading():
                found |= {prompt: self._read(prompt) for prompt in unknown}
        names = found[prompts[0]].keys()
        return {name: torch.cat([found[prompt][name] for prompt in prompts]).to(self._device) for name in names}

    def _read(self, prompt: str) -> Conditioning:
        encoded = {name: value.detach().cpu() for name, value in self._encode([prompt]).items()}
        size = sum(value.nbytes for value in encoded.values())
        if size <= self._room:
            self._room -= size
            self._kept[prompt] = encoded
        return encoded
