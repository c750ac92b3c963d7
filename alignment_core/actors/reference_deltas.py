"""References of a LoRA that average its weights exactly: the change of every adapted layer, whole or as a sum of low ranks.

Both are kept beside the base weights and added to the outputs of the base layers, never merged into them: a base in half
precision would round small changes away. Layers may be linear or two-dimensional convolutions, whose change B A is a kernel of
the base's size.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import assert_never

import torch
import torch.nn.functional as F
from jaxtyping import Float
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from alignment_core.actors.reading_network import Denoiser
from alignment_core.actors.reference_weights import ADAPTER, Shape, Weights, average, lora_layers, without_adapter
from alignment_core.errors import ModelError

FactorA = Float[Tensor, "rank inputs"]
FactorB = Float[Tensor, "outputs rank"]
Change = Callable[[Tensor], Tensor]  # of a layer's inputs; what its outputs gain


class DenseDelta:
    """The change of every adapted weight, multiplied out: Dl <- (1-alpha) Dl + alpha s B A, s = lora_alpha / r. Exact.

    Raises `ModelError` when a target is neither a linear layer nor a convolution that can be multiplied out.
    """

    def __init__(self, denoiser: Denoiser) -> None:
        self._denoiser = denoiser
        self._layers = supported_layers(denoiser, "dense_delta")

    def initial(self) -> dict[str, Tensor]:
        return {
            name: torch.zeros(_weight(layer.get_base_layer()).shape, device=_weight(layer.lora_A[ADAPTER]).device)
            for name, layer in self._layers.items()
        }

    def blend(self, reference: Weights, alpha: float) -> dict[str, Tensor]:
        return {name: average(reference[name], _delta(layer), alpha) for name, layer in self._layers.items()}

    @contextmanager
    def denoiser(self, reference: Weights) -> Iterator[nn.Module]:
        changes = {name: _whole(layer, reference[name]) for name, layer in self._layers.items()}
        with _changed(self._denoiser, self._layers, changes):
            yield self._denoiser

    def blending_metrics(self, reference: Weights, alpha: float) -> dict[str, float]:
        return {}

    def of_copy(self, copied: Weights) -> dict[str, Tensor]:
        return {name: _multiplied(layer, *_copied_factors(layer, copied, name)) for name, layer in self._layers.items()}

    def forms(self) -> tuple[dict[str, Shape], ...]:
        return ({name: tuple(_weight(layer.get_base_layer()).shape) for name, layer in self._layers.items()},)


class LowrankSum:
    """The change of every adapted weight as one long product: [(1-alpha) B_ref, alpha s B] [A_ref; A].

    Its rank grows by r with every update. Exact up to `rank_cap`; beyond it the product is replaced by the nearest one of that
    rank, found by QR and SVD, and `ref_discarded_energy` says which share of its squared norm was lost. A layer never
    keeps more than its own full rank. Raises `ModelError` like `DenseDelta`.
    """

    def __init__(self, denoiser: Denoiser, rank_cap: int) -> None:
        self._denoiser = denoiser
        self._layers = supported_layers(denoiser, "lowrank_sum")
        self._ranks = {name: min(rank_cap, *_matrix_shape(layer)) for name, layer in self._layers.items()}

    def initial(self) -> dict[str, Tensor]:
        weights = {}
        for name, layer in self._layers.items():
            num_outputs, num_inputs = _matrix_shape(layer)
            device = _weight(layer.get_base_layer()).device
            weights[f"{name}.A"] = torch.zeros(0, num_inputs, device=device)
            weights[f"{name}.B"] = torch.zeros(num_outputs, 0, device=device)
        return weights

    def blend(self, reference: Weights, alpha: float) -> dict[str, Tensor]:
        weights = {}
        for name in self._layers:
            a, b = truncated(*self._sum(reference, name, alpha), self._ranks[name])
            weights |= {f"{name}.A": a, f"{name}.B": b}
        return weights

    def _sum(self, reference: Weights, name: str, alpha: float) -> tuple[FactorA, FactorB]:
        """The average of one layer's change, of as many ranks as it takes; new tensors."""
        terms = [(1 - alpha, reference[f"{name}.A"], reference[f"{name}.B"]), (alpha, *_factors(self._layers[name]))]
        present = [(share, a, b) for share, a, b in terms if share > 0]
        return torch.cat([a for _, a, _ in present]), torch.cat([share * b for share, _, b in present], dim=1)

    @contextmanager
    def denoiser(self, reference: Weights) -> Iterator[nn.Module]:
        changes = {
            name: _factored(layer, reference[f"{name}.A"], reference[f"{name}.B"])
            for name, layer in self._layers.items()
            if len(reference[f"{name}.A"])
        }
        with _changed(self._denoiser, self._layers, changes):
            yield self._denoiser

    @torch.no_grad()
    def blending_metrics(self, reference: Weights, alpha: float) -> dict[str, float]:
        lost = whole = 0.0
        highest = 0
        for name, rank in self._ranks.items():
            a, b = self._sum(reference, name, alpha)
            energies = _spectrum(a, b)[1].square()
            lost, whole = lost + float(energies[rank:].sum()), whole + float(energies.sum())
            highest = max(highest, min(len(a), rank))
        return {"ref_discarded_energy": lost / whole if whole > 0 else 0.0, "ref_rank": float(highest)}

    def of_copy(self, copied: Weights) -> dict[str, Tensor]:
        weights = {}
        for name, layer in self._layers.items():
            a, b = truncated(*_copied_factors(layer, copied, name), self._ranks[name])
            weights |= {f"{name}.A": a, f"{name}.B": b}
        return weights

    def forms(self) -> tuple[dict[str, Shape], ...]:
        shapes: dict[str, Shape] = {}
        for name, layer in self._layers.items():
            num_outputs, num_inputs = _matrix_shape(layer)
            shapes |= {f"{name}.A": (None, num_inputs), f"{name}.B": (num_outputs, None)}
        return (shapes,)


def truncated(a: FactorA, b: FactorB, rank: int) -> tuple[Float[Tensor, "cut inputs"], Float[Tensor, "outputs cut"]]:
    """Factors whose product is the nearest to b a of at most this rank (Eckart and Young); unchanged where they fit.

    b a is projected on its leading left singular vectors U: factors U^T b a and U. A gradient flows as if U were fixed.
    """
    if len(a) <= rank:
        return a, b
    basis = _spectrum(a.detach(), b.detach())[0][:, :rank].to(b.dtype)
    return (basis.T @ b) @ a, basis


def supported_layers(denoiser: nn.Module, store: str) -> dict[str, LoraLayer]:
    """The layers that are trained, by name; raises `ModelError` when the change of one is not a weight of the base's shape."""
    layers = {
        name: layer for name, layer in lora_layers(denoiser).items() if _weight(layer.lora_B[ADAPTER]).requires_grad
    }
    for name, layer in layers.items():
        base = layer.get_base_layer()
        if isinstance(base, nn.Linear) or (isinstance(base, nn.Conv2d) and base.groups == 1):
            continue
        raise ModelError(
            "adapter_target_unsupported",
            f"adapter.target_modules: {name} is a {type(base).__name__}, and reference.ref_store {store} averages "
            "linear layers and ungrouped two-dimensional convolutions",
            hint="Use reference.type hard_copy, or leave this module out.",
        )
    return layers


@contextmanager
def _changed(denoiser: Denoiser, layers: Mapping[str, LoraLayer], changes: Mapping[str, Change]) -> Iterator[None]:
    """The denoiser without its adapter, and with these changes added to the outputs of its layers."""
    with ExitStack() as hooks, without_adapter(denoiser):
        for name, change in changes.items():
            hook = layers[name].get_base_layer().register_forward_hook(partial(_add, change))
            hooks.callback(hook.remove)
        yield


def _add(change: Change, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """A hook, once `change` is given."""
    return (output + change(inputs[0].float())).to(output.dtype)


def _whole(layer: LoraLayer, delta: Tensor) -> Change:
    base = _base(layer)
    match base:
        case nn.Linear():
            return lambda x: F.linear(x, delta)
        case nn.Conv2d():  # as the adapter itself: stride and padding of the base, whatever its dilation
            return lambda x: F.conv2d(x, delta, stride=base.stride, padding=base.padding)
        case _:
            assert_never(base)


def _factored(layer: LoraLayer, a: FactorA, b: FactorB) -> Change:
    """B (A x), which never multiplies the factors out."""
    base = _base(layer)
    match base:
        case nn.Linear():
            return lambda x: F.linear(F.linear(x, a), b)
        case nn.Conv2d():
            inner = _whole(layer, a.reshape(len(a), *base.weight.shape[1:]))
            return lambda x: F.conv2d(inner(x), b[:, :, None, None])
        case _:
            assert_never(base)


def _spectrum(a: FactorA, b: FactorB) -> tuple[Float[Tensor, "outputs k"], Float[Tensor, " k"]]:
    """Left singular vectors and singular values of b a, float64, largest first, without multiplying it out."""
    q_b, r_b = torch.linalg.qr(b.double())
    r_a = torch.linalg.qr(a.double().T).R
    u, values, _ = torch.linalg.svd(r_b @ r_a.T, full_matrices=False)
    return q_b @ u, values


def _delta(layer: LoraLayer) -> Tensor:
    return _multiplied(layer, *_factors(layer))


def _multiplied(layer: LoraLayer, a: FactorA, b: FactorB) -> Tensor:
    return (b @ a).reshape(_weight(layer.get_base_layer()).shape)


def _factors(layer: LoraLayer) -> tuple[FactorA, FactorB]:
    """A and s B of the policy."""
    return _as_matrices(layer, _weight(layer.lora_A[ADAPTER]), _weight(layer.lora_B[ADAPTER]))


def _copied_factors(layer: LoraLayer, copied: Weights, name: str) -> tuple[FactorA, FactorB]:
    """A and s B of a second set of the adapter's factors."""
    a, b = (copied[f"{name}.lora_{factor}.{ADAPTER}.weight"] for factor in "AB")
    return _as_matrices(layer, a, b)


def _as_matrices(layer: LoraLayer, a: Tensor, b: Tensor) -> tuple[FactorA, FactorB]:
    """A and s B, float32; a convolution's kernel is flattened."""
    return a.float().flatten(1), b.float().flatten(1) * layer.scaling[ADAPTER]


def _matrix_shape(layer: LoraLayer) -> tuple[int, int]:
    weight = _weight(layer.get_base_layer())
    return len(weight), weight[0].numel()


def _base(layer: LoraLayer) -> nn.Linear | nn.Conv2d:
    base = layer.get_base_layer()
    assert isinstance(base, nn.Linear | nn.Conv2d)
    return base


def _weight(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    return layer.weight
