"""How far the trained weights are from those of the initial model."""

from collections.abc import Mapping
from typing import assert_never

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.reading_network import own_name
from alignment_core.actors.reference_weights import ADAPTER, INITIAL, lora_layers
from alignment_core.shares import whole


@torch.no_grad()
def weight_deltas(actors: Actors) -> dict[str, Tensor]:
    """Policy minus initial model, float32 on the CPU: s B A of every adapted module, or every parameter of a fine-tune.

    Named as in the initial model, so that the two kinds compare.
    """
    match actors.kind:
        case "lora":
            return _lora_deltas(actors)
        case "full":
            return _full_deltas(actors)
        case _:
            assert_never(actors.kind)


def _lora_deltas(actors: Actors) -> dict[str, Tensor]:
    return {f"{name}.weight": _change(layer).cpu() for name, layer in _layers(actors).items()}


def _layers(actors: Actors) -> dict[str, LoraLayer]:
    """By the names that they have in the initial model, whether its text encoders are trained or not."""
    return {own_name(actors.denoiser, name): layer for name, layer in lora_layers(actors.denoiser).items()}


def _full_deltas(actors: Actors) -> dict[str, Tensor]:
    with actors.initial_weights() as initial:
        return {
            name: whole(_minus(actors.denoiser.get_parameter(name).float(), parameter)).cpu()
            for name, parameter in initial.items()
        }


def _minus(weight: Tensor, initial: Tensor) -> Tensor:
    return weight - initial.to(weight.device, torch.float32)


def _change(layer: LoraLayer) -> Tensor:
    """s B A, less what the adapter began as where the initial model has that too."""
    change = layer.get_delta_weight(ADAPTER).float()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]
    return change - _initial_delta(layer) if INITIAL in layer.lora_A else change


def _initial_delta(layer: LoraLayer) -> Tensor:
    return layer.get_delta_weight(INITIAL).float()  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]


@torch.no_grad()
def initial_norms(actors: Actors) -> dict[str, float]:
    """The norm of each of those weights in the initial model."""
    match actors.kind:
        case "lora":
            return _lora_norms(actors)
        case "full":
            return _full_norms(actors)
        case _:
            assert_never(actors.kind)


def _lora_norms(actors: Actors) -> dict[str, float]:
    return {
        f"{name}.weight": float(torch.linalg.vector_norm(_initial_weight(layer).double()))
        for name, layer in _layers(actors).items()
    }


def _initial_weight(layer: LoraLayer) -> Tensor:
    weight = whole(layer.get_base_layer().get_parameter("weight"))
    return weight + _initial_delta(layer) if INITIAL in layer.lora_A else weight


def _full_norms(actors: Actors) -> dict[str, float]:
    with actors.initial_weights() as initial:
        return {name: float(torch.linalg.vector_norm(whole(weight).double())) for name, weight in initial.items()}


def relative_change(
    base: Mapping[str, Tensor], policy: Mapping[str, Tensor], initial_norms: Mapping[str, float]
) -> float:
    """|delta_policy - delta_base| / |W_initial| over every trained weight.

    A weight that one side lacks has not changed there.
    """
    names, nothing = {**base, **policy}, torch.zeros(())
    changed = sum(
        float((policy.get(name, nothing) - base.get(name, nothing)).double().square().sum()) for name in names
    )
    whole = sum(initial_norms[name] ** 2 for name in names)
    return (changed / whole) ** 0.5 if whole > 0 else 0.0
