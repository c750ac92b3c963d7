"""Policy and reference made of a network: a LoRA adapter on it, or every weight of it beside a frozen copy."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from diffusers import ModelMixin
from peft import LoraConfig

from alignment_core.actors.actors import Actors
from alignment_core.actors.forwards import DenoiserFamily
from alignment_core.actors.lora_forward import switched
from alignment_core.actors.plain_blocks import simplify
from alignment_core.actors.reading_network import Denoiser, Part, ReadingNetwork, parts_of
from alignment_core.actors.reference_weights import ADAPTER
from alignment_core.actors.remade import remake
from alignment_core.errors import ModelError
from alignment_core.seeds import seed_of


@dataclass(frozen=True)
class LoraShape:
    """The adapter of a network: B A alpha / rank of each module whose name ends in one of `target_modules`."""

    rank: int
    alpha: float
    target_modules: tuple[str, ...]


def lora_actors(
    family: DenoiserFamily,
    denoiser: Denoiser,
    *,
    rank: int,
    alpha: float,
    target_modules: tuple[str, ...],
    seed: int,
    autocast: Callable[[], AbstractContextManager[object]],
    text_encoders: LoraShape | None = None,
) -> Actors:
    """Add a LoRA adapter (A gaussian, B zero, float32) to `denoiser`; at step 0 policy and reference agree bit for bit.

    `text_encoders` is the adapter of each text encoder of a `ReadingNetwork`.
    """
    own, *others = parts_of(denoiser).items()
    simplify(own[1])
    _add_adapter(own[1], LoraShape(rank, alpha, target_modules), seed_of(seed, "lora"), "adapter")
    for name, part in others:
        assert text_encoders is not None, "a network that reads is there to be trained"
        _add_adapter(part, text_encoders, seed_of(seed, "lora", name), "adapter.text_encoder")
    unheard = denoiser.unheard if isinstance(denoiser, ReadingNetwork) else ()
    for name, parameter in denoiser.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(not name.startswith(unheard))
    _remake(denoiser)
    return Actors(family, denoiser.eval(), initial_copy=None, autocast=autocast, switch=switched(denoiser, ADAPTER))


def _add_adapter(network: Part, shape: LoraShape, seed: int, field: str) -> None:
    config = LoraConfig(
        r=shape.rank,
        lora_alpha=shape.alpha,  # pyright: ignore[reportArgumentType]  (peft takes floats)
        target_modules=list(shape.target_modules),
        init_lora_weights="gaussian",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            network.add_adapter(config, adapter_name=ADAPTER)
        except ValueError as error:
            raise ModelError("adapter_target_missing", f"{field}.target_modules: {error}") from error


def full_actors(
    family: DenoiserFamily, denoiser: Denoiser, *, autocast: Callable[[], AbstractContextManager[object]]
) -> Actors:
    """Train every weight of `denoiser` (float32); a frozen copy in the same precision is the reference.

    A run in half precision keeps the copy in it where that changes no number (`Actors.keep_initial_in`).
    """
    assert not isinstance(denoiser, ReadingNetwork), "text encoders are trained by adapters alone"
    simplify(denoiser)
    initial = copy.deepcopy(denoiser).requires_grad_(False).eval()
    _remake(denoiser.requires_grad_(True))
    return Actors(family, denoiser.eval(), initial_copy=initial, autocast=autocast)


def _remake(denoiser: Denoiser) -> None:
    own = next(iter(parts_of(denoiser).values()))
    if isinstance(own, ModelMixin) and not own.is_gradient_checkpointing:
        remake(own)
