"""The moving reference of a full fine-tune whose weights lie in shares."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from diffusers import ModelMixin
from torch import Tensor, nn

from alignment_core.actors.reference_weights import FullWeights, Shape, Weights
from alignment_core.shares import local


class ShardedFullWeights:
    """`FullWeights`, but run in the network that it began as, whose shares are the reference's for the time of the forward.

    A network that is sharded brings its own weights together when it is called, so it cannot be called with others.
    """

    def __init__(self, denoiser: ModelMixin, frozen: ModelMixin) -> None:
        self._weights = FullWeights(denoiser, frozen)
        self._frozen = frozen

    def initial(self) -> dict[str, Tensor]:
        return self._weights.initial()

    def blend(self, reference: Weights, alpha: float) -> dict[str, Tensor]:
        return self._weights.blend(reference, alpha)

    @contextmanager
    def denoiser(self, reference: Weights) -> Iterator[nn.Module]:
        """Inside, `reference` holds what the network began as: they change places one weight at a time, which takes no second copy.

        The room for that is taken before the first one moves, so that a lack of memory never leaves the two mixed.
        """
        spare = self._room_for_one()
        self._exchange(reference, spare)
        try:
            yield self._frozen
        finally:
            self._exchange(reference, spare)

    def _room_for_one(self) -> Mapping[torch.dtype, Tensor]:
        """By kind of number, as many as the largest share of a weight has."""
        largest: dict[torch.dtype, Tensor] = {}
        for mine in map(local, self._frozen.parameters()):
            if mine.dtype not in largest or largest[mine.dtype].numel() < mine.numel():
                largest[mine.dtype] = mine
        return {dtype: mine.new_empty(mine.numel()) for dtype, mine in largest.items()}

    @torch.no_grad()
    def _exchange(self, weights: Weights, spare: Mapping[torch.dtype, Tensor]) -> None:
        for name, parameter in self._frozen.named_parameters():
            mine, theirs = local(parameter), local(weights[name])
            assert mine.dtype == theirs.dtype, "a weight that is rounded does not come back"
            before = spare[mine.dtype][: mine.numel()].view(mine.shape).copy_(mine)
            mine.copy_(theirs)
            theirs.copy_(before)

    def blending_metrics(self, reference: Weights, alpha: float) -> dict[str, float]:
        return {}

    def forms(self) -> tuple[dict[str, Shape], ...]:
        return self._weights.forms()
