"""The factors that a LoRA begins with, and where an adapter keeps what it began as."""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from alignment_core.actors.reading_network import Denoiser, parts_of
from alignment_core.actors.reference_weights import ADAPTER, INITIAL, lora_layers

Factors = Mapping[str, tuple[Tensor, Tensor]]
"""A and B of a LoRA by module, in PEFT's shapes."""


def set_factors(denoiser: nn.Module, adapter: str, factors: Factors) -> None:
    """Give the adapter these factors; layers without keep theirs."""
    layers = lora_layers(denoiser)
    for name, (down, up) in factors.items():
        for side, value in ((layers[name].lora_A[adapter], down), (layers[name].lora_B[adapter], up)):
            weight = side.get_parameter("weight")
            weight.data = value.to(weight.device, torch.float32, copy=True)


def factors_of(denoiser: nn.Module, adapter: str) -> Factors:
    """Those that the adapter has now; not copies."""
    return {
        name: (layer.lora_A[adapter].get_parameter("weight"), layer.lora_B[adapter].get_parameter("weight"))
        for name, layer in lora_layers(denoiser).items()
    }


def keep_as_initial(denoiser: Denoiser) -> None:
    """A second adapter that is what the first one is now, and is never trained; what was trained still is, and nothing else."""
    trained = {name for name, parameter in denoiser.named_parameters() if parameter.requires_grad}
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")  # there are two on purpose
        for part in parts_of(denoiser).values():
            part.add_adapter(part.peft_config[ADAPTER], adapter_name=INITIAL)
    set_factors(denoiser, INITIAL, factors_of(denoiser, ADAPTER))
    denoiser.set_adapter(ADAPTER)
    for name, parameter in denoiser.named_parameters():
        parameter.requires_grad_(name in trained)
