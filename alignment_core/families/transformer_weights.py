"""The policy's weights of SD 3 and FLUX.1 on disk: a LoRA under diffusers' names, which ComfyUI reads too, or a whole folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, assert_never

from diffusers import FluxPipeline, ModelMixin, StableDiffusion3Pipeline
from peft import get_peft_model_state_dict
from torch import Tensor, nn

from alignment_core.actors.actors import Actors
from alignment_core.actors.reading_network import Part
from alignment_core.actors.reference_weights import ADAPTER
from alignment_core.checkpoints import STATE
from alignment_core.families.family import Family
from alignment_core.families.joined_lora import (
    OWN,
    config_of_adapter,
    described_layers,
    joined_layers,
    load_own,
    save_own,
    tensors_of,
    trained_parts,
)
from alignment_core.families.sd_weights import LORA_FILE, PIPELINE_FOLDER, copy_frozen_parts, forget_origin
from alignment_core.safetensors_files import order_metadata

DENOISER = "transformer"
Pipeline = type[StableDiffusion3Pipeline] | type[FluxPipeline]


def save_policy(family: Family, pipeline: Pipeline, actors: Actors, folder: Path, frozen: tuple[str, ...]) -> None:
    """Write the LoRA as `pipeline.load_lora_weights(folder)` reads it, or a whole folder under `pipeline/`."""
    match actors.kind:
        case "full":
            _save_pipeline(family, actors, folder / PIPELINE_FOLDER, frozen)
        case "lora" if family.merged:
            _save_joined(family, pipeline, actors, folder)
        case "lora":
            _save_lora(pipeline, actors, folder)
        case _:
            assert_never(actors.kind)


def _save_pipeline(family: Family, actors: Actors, folder: Path, frozen: tuple[str, ...]) -> None:
    copy_frozen_parts(family.folder, folder, frozen)
    _save_part(_transformer(actors), folder / DENOISER)
    for name in family.merged.keys() - {DENOISER}:
        for copied in (folder / name).glob("*.safetensors*"):  # without what was merged into it
            copied.unlink()
        _save_part(family.components()[name], folder / name)


def _save_part(model: nn.Module, folder: Path) -> None:
    model.save_pretrained(folder, safe_serialization=True)  # pyright: ignore[reportCallIssue]
    forget_origin(folder / "config.json")


def _save_lora(pipeline: Pipeline, actors: Actors, folder: Path) -> None:
    config = config_of_adapter(_transformer(actors))
    layers: dict[str, Tensor] = get_peft_model_state_dict(_transformer(actors), adapter_name=ADAPTER)
    # Rank and alpha travel in the file's header: without them every loader assumes alpha = rank.
    described = {**config.to_dict(), "target_modules": sorted(config.target_modules or ())}
    _write(pipeline, {DENOISER: layers}, {DENOISER: described}, folder)


def _save_joined(family: Family, pipeline: Pipeline, actors: Actors, folder: Path) -> None:
    layers = joined_layers(actors, family.merged, DENOISER)
    tensors = {name: tensors_of(updates) for name, updates in layers.items()}
    _write(pipeline, tensors, {name: described_layers(updates) for name, updates in layers.items()}, folder)
    save_own(actors, folder)


def _write(pipeline: Pipeline, layers: Mapping[str, Any], described: Mapping[str, Any], folder: Path) -> None:
    named: dict[str, Any] = {f"{name}_lora_layers": tensors for name, tensors in layers.items()}
    named |= {f"{name}_lora_adapter_metadata": config for name, config in described.items()}
    pipeline.save_lora_weights(folder, weight_name=LORA_FILE, safe_serialization=True, **named)
    order_metadata(folder / LORA_FILE)


def load_policy(actors: Actors, folder: Path) -> None:
    """Put the weights that `save_policy` wrote back into the policy, exactly."""
    match actors.kind:
        case "full":
            assert issubclass(actors.network_type, ModelMixin)
            saved = actors.network_type.from_pretrained(
                folder / PIPELINE_FOLDER, subfolder=DENOISER, use_safetensors=True, local_files_only=True
            )
            actors.load_whole(saved.state_dict())
        case "lora":
            _load_lora(actors, folder)
        case _:
            assert_never(actors.kind)


def _load_lora(actors: Actors, folder: Path) -> None:
    own = folder / STATE / OWN  # beside a LoRA that holds what was merged too
    load_own(actors, own if own.is_file() else folder / LORA_FILE, DENOISER)


def _transformer(actors: Actors) -> Part:
    """The only network that is trained here."""
    return trained_parts(actors, DENOISER)[DENOISER]
