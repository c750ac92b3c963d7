"""Where the weights of a moving reference are kept, and how they are averaged with the policy's.

A reference is a set of tensors by name; a `ReferenceWeights` says what they mean. Networks are never written to: a reference
is run with its tensors in place of the policy's for the time of the forward, so no error can leave the wrong ones behind.

Averaging the factors of two LoRAs is not averaging their weights: with deltas B_0 A_0 and B_1 A_1 it misses the average by
exactly -alpha (1-alpha) (B_1 - B_0)(A_1 - A_0). `DenseDelta` therefore keeps the products.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from alignment_core.errors import ModelError

ADAPTER = "default"
Weights = Mapping[str, Tensor]


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

    def blending_error(self, reference: Weights, alpha: float) -> float | None:
        """Relative error of `blend` in the weights, where it is an approximation."""
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

    def __init__(self, denoiser: UNet2DConditionModel, frozen: UNet2DConditionModel) -> None:
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

    def blending_error(self, reference: Weights, alpha: float) -> None:
        return None


class AdapterFactors:
    """A second set of the LoRA's A and B. Exact for copies (alpha 0 or 1); otherwise `factor_average`, an approximation."""

    def __init__(self, denoiser: UNet2DConditionModel) -> None:
        self._denoiser = denoiser
        self._layers = lora_layers(denoiser)
        self._names = [name for name, p in denoiser.named_parameters() if p.requires_grad]

    def initial(self) -> dict[str, Tensor]:
        zeroed = {f"{name}.lora_B.{ADAPTER}.weight" for name in self._layers}
        policy = self.blend({}, 1.0)
        return {name: torch.zeros_like(p) if name in zeroed else p.detach() for name, p in policy.items()}

    def blend(self, reference: Weights, alpha: float) -> dict[str, Tensor]:
        policy = {name: self._denoiser.get_parameter(name) for name in self._names}
        return {name: average(reference.get(name, p), p, alpha) for name, p in policy.items()}

    @contextmanager
    def denoiser(self, reference: Weights) -> Iterator[nn.Module]:
        yield _WithWeights(self._denoiser, reference)

    @torch.no_grad()
    def blending_error(self, reference: Weights, alpha: float) -> float | None:
        if alpha in (0, 1):
            return None
        policy, blended = self.blend(reference, 1.0), self.blend(reference, alpha)
        missed = wanted = 0.0
        for name in self._layers:
            old, new, got = (_product(weights, name) for weights in (reference, policy, blended))
            true = average(old, new, alpha)
            missed += float((true - got).square().sum())
            wanted += float(true.square().sum())
        return (missed / wanted) ** 0.5 if wanted > 0 else 0.0


class DenseDelta:
    """The change of every adapted weight, multiplied out: Dl <- (1-alpha) Dl + alpha s B A, s = lora_alpha / r. Exact.

    It is kept beside the base weights and added to their outputs, never merged into them: a base in half precision would
    round small changes away. Raises `ModelError` when a target is not a linear layer.
    """

    def __init__(self, denoiser: UNet2DConditionModel) -> None:
        self._denoiser = denoiser
        self._layers = lora_layers(denoiser)
        for name, layer in self._layers.items():
            if not isinstance(layer.get_base_layer(), nn.Linear):
                raise ModelError(
                    "adapter_target_unsupported",
                    f"adapter.target_modules: {name} is a {type(layer.get_base_layer()).__name__}, and "
                    "reference.ref_store dense_delta averages linear layers",
                    hint="Use reference.type hard_copy, or leave this module out.",
                )

    def initial(self) -> dict[str, Tensor]:
        return {
            name: torch.zeros_like(_weight(layer.get_base_layer()), dtype=torch.float32)
            for name, layer in self._layers.items()
        }

    def blend(self, reference: Weights, alpha: float) -> dict[str, Tensor]:
        return {name: average(reference[name], _delta(layer), alpha) for name, layer in self._layers.items()}

    @contextmanager
    def denoiser(self, reference: Weights) -> Iterator[nn.Module]:
        hooks = [
            layer.get_base_layer().register_forward_hook(_adding(reference[name]))
            for name, layer in self._layers.items()
        ]
        self._denoiser.disable_adapters()
        try:
            yield self._denoiser
        finally:
            self._denoiser.enable_adapters()
            for hook in hooks:
                hook.remove()

    def blending_error(self, reference: Weights, alpha: float) -> None:
        return None


def lora_layers(denoiser: nn.Module) -> dict[str, LoraLayer]:
    """The adapted modules by name."""
    return {name: module for name, module in denoiser.named_modules() if isinstance(module, LoraLayer)}


class _WithWeights(nn.Module):
    """A denoiser that runs with other parameters than its own, which it never touches."""

    def __init__(self, denoiser: nn.Module, weights: Weights) -> None:
        super().__init__()
        self._denoiser = denoiser
        self._weights = dict(weights)

    def forward(self, *args: object, **kwargs: object) -> object:
        return torch.func.functional_call(self._denoiser, self._weights, args, kwargs)


def _adding(delta: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return (output + F.linear(inputs[0].to(delta.dtype), delta)).to(output.dtype)

    return hook


def _delta(layer: LoraLayer) -> Tensor:
    product = _weight(layer.lora_B[ADAPTER]).float() @ _weight(layer.lora_A[ADAPTER]).float()
    return product * layer.scaling[ADAPTER]


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight


def _product(weights: Weights, name: str) -> Tensor:
    """B A of one layer; the scale is the same everywhere and cancels in relative errors."""
    b, a = weights[f"{name}.lora_B.{ADAPTER}.weight"], weights[f"{name}.lora_A.{ADAPTER}.weight"]
    return b.flatten(1) @ a.flatten(1)
