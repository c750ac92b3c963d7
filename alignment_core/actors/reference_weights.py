"""Where the weights of a moving reference are kept, and how they are averaged with the policy's.

A reference is a set of tensors by name; a `ReferenceWeights` says what they mean. Networks are never written to: a reference
is run with its tensors in place of the policy's for the time of the forward, so no error can leave the wrong ones behind.

Averaging the factors of two LoRAs is not averaging their weights: with deltas B_0 A_0 and B_1 A_1 it misses the average by
exactly -alpha (1-alpha) (B_1 - B_0)(A_1 - A_0). Nothing is missed where A is one and the same; `reference_deltas` has the
stores that keep products instead, and `reference_copies` what they do about copies.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

import torch
from diffusers import ModelMixin
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from alignment_core.actors.reading_network import Denoiser

ADAPTER = "default"
INITIAL = "initial"  # a second adapter, never trained: what the first one began as, where that was not nothing
Weights = Mapping[str, Tensor]
Shape = tuple[int | None, ...]  # None: any length


@runtime_checkable
class ReferenceWeights(Protocol):
    """One way to keep a reference. All tensors are float32."""

    def initial(self) -> dict[str, Tensor]:
        """Tensors that make the reference the model the run started from."""
        ...

    def blend(self, reference: Weights, alpha: float) -> dict[str, Tensor]:
        """(1-alpha) reference + alpha policy, with the policy's gradient where that is enabled; new tensors."""
        ...

    def denoiser(self, reference: Weights) -> AbstractContextManager[nn.Module]:
        """The network with these weights, for as long as the context lasts."""
        ...

    def blending_metrics(self, reference: Weights, alpha: float) -> dict[str, float]:
        """What `blend` misses of the average, as metrics by name; none where it is exact."""
        ...

    def forms(self) -> tuple[dict[str, Shape], ...]:
        """The sets of tensors that a reference may be, by name, with the shape that each must have."""
        ...


def average(old: Tensor, new: Tensor, alpha: float) -> Tensor:
    """(1-alpha) old + alpha new in float32; at alpha 0 and 1 exactly one of them. Never shares memory with either."""
    if alpha == 0:
        return old.float().clone()
    if alpha == 1:
        return new.float().clone()
    return (1 - alpha) * old.float() + alpha * new.float()


class FullWeights:
    """Every parameter of the denoiser; the reference of a full fine-tune. `frozen` is the network it started as."""

    def __init__(self, denoiser: ModelMixin, frozen: ModelMixin) -> None:
        self._denoiser = denoiser
        self._frozen = frozen

    def initial(self) -> dict[str, Tensor]:
        device = self._denoiser.device
        return {name: p.detach().to(device, torch.float32, copy=True) for name, p in self._frozen.named_parameters()}

    def blend(self, reference: Weights, alpha: float) -> dict[str, Tensor]:
        return {name: average(reference[name], p, alpha) for name, p in self._denoiser.named_parameters()}

    @contextmanager
    def denoiser(self, reference: Weights) -> Iterator[nn.Module]:
        yield _WithWeights(self._denoiser, reference)

    def blending_metrics(self, reference: Weights, alpha: float) -> dict[str, float]:
        return {}

    def forms(self) -> tuple[dict[str, Shape], ...]:
        return ({name: tuple(p.shape) for name, p in self._denoiser.named_parameters()},)


class AdapterFactors:
    """A second set of what the LoRA trains.

    Exact for copies (alpha 0 or 1) and where B alone is trained (`shared_A`); otherwise `factor_average`, an approximation.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self._layers = lora_layers(denoiser)
        self._names = [name for name, p in denoiser.named_parameters() if p.requires_grad]

    def initial(self) -> dict[str, Tensor]:
        policy = self.blend({}, 1.0)
        if has_initial_adapter(self._denoiser):
            return {name: self._denoiser.get_parameter(_in_initial(name)).detach().clone() for name in policy}
        zeroed = {f"{name}.lora_B.{ADAPTER}.weight" for name in self._layers}
        return {name: torch.zeros_like(p) if name in zeroed else p.detach() for name, p in policy.items()}

    def blend(self, reference: Weights, alpha: float) -> dict[str, Tensor]:
        policy = {name: self._denoiser.get_parameter(name) for name in self._names}
        return {name: average(reference.get(name, p), p, alpha) for name, p in policy.items()}

    @contextmanager
    def denoiser(self, reference: Weights) -> Iterator[nn.Module]:
        yield _WithWeights(self._denoiser, reference)

    @torch.no_grad()
    def blending_metrics(self, reference: Weights, alpha: float) -> dict[str, float]:
        if alpha in (0, 1) or not any(".lora_A." in name for name in self._names):
            return {}
        policy, blended = self.blend(reference, 1.0), self.blend(reference, alpha)
        missed = wanted = 0.0
        for name in self._layers:
            old, new, got = (_product(weights, name) for weights in (reference, policy, blended))
            true = average(old, new, alpha)
            missed += float((true - got).square().sum())
            wanted += float(true.square().sum())
        return {"ref_factor_average_error": (missed / wanted) ** 0.5 if wanted > 0 else 0.0}

    def forms(self) -> tuple[dict[str, Shape], ...]:
        return ({name: tuple(self._denoiser.get_parameter(name).shape) for name in self._names},)


def lora_layers(denoiser: nn.Module) -> dict[str, LoraLayer]:
    """The adapted modules by name."""
    return {name: module for name, module in denoiser.named_modules() if isinstance(module, LoraLayer)}


@contextmanager
def without_adapter(denoiser: Denoiser) -> Iterator[None]:
    """The denoiser with its adapter off inside, and on again after, whatever happens; what was trained still is."""
    with _same_trained(denoiser):
        denoiser.disable_adapters()
        try:
            yield
        finally:
            denoiser.enable_adapters()


@contextmanager
def initial_adapter(denoiser: Denoiser) -> Iterator[None]:
    """The denoiser as it began inside, and as it is again after: with what its adapter began as, or with none."""
    if not has_initial_adapter(denoiser):
        with without_adapter(denoiser):
            yield
        return
    with _same_trained(denoiser):
        denoiser.set_adapter(INITIAL)
        try:
            yield
        finally:
            denoiser.set_adapter(ADAPTER)


def has_initial_adapter(denoiser: nn.Module) -> bool:
    """Whether the adapter began as something."""
    return any(INITIAL in layer.lora_A for layer in lora_layers(denoiser).values())


@contextmanager
def _same_trained(denoiser: nn.Module) -> Iterator[None]:
    """What is trained is so again after; peft makes everything trainable that it switches on."""
    trained = [(parameter, parameter.requires_grad) for parameter in denoiser.parameters()]
    try:
        yield
    finally:
        for parameter, is_trained in trained:
            parameter.requires_grad_(is_trained)


def _in_initial(name: str) -> str:
    return name.replace(f".{ADAPTER}.", f".{INITIAL}.")


class _WithWeights(nn.Module):
    """A denoiser that runs with other parameters than its own, which it never touches."""

    def __init__(self, denoiser: nn.Module, weights: Weights) -> None:
        super().__init__()
        self._denoiser = denoiser
        self._weights = dict(weights)

    def forward(self, *args: object, **kwargs: object) -> object:
        return torch.func.functional_call(self._denoiser, self._weights, args, kwargs)


def _product(weights: Weights, name: str) -> Tensor:
    """B A of one layer; the scale is the same everywhere and cancels in relative errors."""
    b, a = weights[f"{name}.lora_B.{ADAPTER}.weight"], weights[f"{name}.lora_A.{ADAPTER}.weight"]
    return b.flatten(1) @ a.flatten(1)
