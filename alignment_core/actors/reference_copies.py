"""Copies of the policy beside averages: a reference that was copied whole is run the way the policy is run.

A product B A that is multiplied out, or scaled before and not after, is rounded in other places than the adapter is. In half
precision that alone made margins of +-1 at beta 5000 right after a copy, where they are 0 by construction.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from alignment_core.actors.reference_weights import AdapterFactors, ReferenceWeights, Shape, Weights


@runtime_checkable
class Averages(ReferenceWeights, Protocol):
    """A store that keeps the change of each layer, and can take over where a copy ends."""

    def of_copy(self, copied: Weights) -> dict[str, Tensor]:
        """The reference that a second set of the adapter's factors stands for."""
        ...


class CopiesApart:
    """`averages`, but what was copied whole (alpha 1) is kept as the adapter's own factors until it is averaged again."""

    def __init__(self, factors: AdapterFactors, averages: Averages, *, begins_as_copy: bool) -> None:
        self._factors = factors
        self._averages = averages
        self._begins_as_copy = begins_as_copy  # of an adapter that did not begin as nothing

    def initial(self) -> dict[str, Tensor]:
        return self._factors.initial() if self._begins_as_copy else self._averages.initial()

    def blend(self, reference: Weights, alpha: float) -> dict[str, Tensor]:
        if alpha == 1 or (alpha == 0 and self._is_copy(reference)):
            return self._factors.blend(reference, alpha)
        return self._averages.blend(self._averaged(reference), alpha)

    @contextmanager
    def denoiser(self, reference: Weights) -> Iterator[nn.Module]:
        with self._of(reference).denoiser(reference) as denoiser:
            yield denoiser

    def blending_metrics(self, reference: Weights, alpha: float) -> dict[str, float]:
        return self._averages.blending_metrics(self._averaged(reference), alpha)

    def forms(self) -> tuple[dict[str, Shape], ...]:
        return (*self._averages.forms(), *self._factors.forms())

    def _of(self, reference: Weights) -> ReferenceWeights:
        return self._factors if self._is_copy(reference) else self._averages

    def _averaged(self, reference: Weights) -> Weights:
        return self._averages.of_copy(reference) if self._is_copy(reference) else reference

    def _is_copy(self, reference: Weights) -> bool:
        return not self._factors.forms()[0].keys().isdisjoint(reference)
