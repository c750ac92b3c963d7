"""A model of an evaluation: the base model, the denoiser and the LoRA that its spec names, as one network in memory."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import assert_never

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from alignment_core.errors import ModelError
from alignment_core.families.family import Family
from alignment_core.families.keys import LoraLayers
from alignment_core.families.lora_file import read_lora
from alignment_core.families.lora_places import place
from alignment_core.families.merge import merge
from alignment_core.families.single_file import in_a_folder
from alignment_core.hub_errors import download_errors, hub_error
from alignment_core.load.model import load_model
from alignment_core.load.start import lora_file_of
from alignment_core.reports import ContenderFacts
from alignment_core.spec.proof import ContenderSpec, DenoiserSource, HubDenoiser, LocalDenoiser, StoredDenoiser
from alignment_core.spec.sources import label_of
from alignment_core.spec.start import lora_label


def load_contender(
    spec: ContenderSpec, here: ContenderSpec, *, device: torch.device, dtype: torch.dtype, cache_dir: Path
) -> tuple[Family, ContenderFacts]:
    """The model as it draws, and what it is known by; `here` is its spec with every name replaced by its place.

    A LoRA is added to the weights, in float32 and rounded once. Raises `ModelError` for what is missing or does not fit.
    """
    source = in_a_folder(here.model, cache_dir)
    family = load_model(source, device=device, frozen_dtype=dtype, denoiser_dtype=dtype, cache_dir=cache_dir)
    base, denoiser, lora = family.fingerprint(), None, None
    if here.denoiser is not None:
        denoiser = put_denoiser(family, denoiser_file_of(here.denoiser))
    if here.lora is not None:
        lora = _add_lora(family, here)
    facts = ContenderFacts(
        name=spec.name,
        model=label_of(spec.model),
        denoiser=None if spec.denoiser is None else denoiser_label(spec.denoiser),
        lora=None if spec.lora is None else lora_label(spec.lora),
        strength=None if spec.lora is None else spec.strength,
        sha256=_joined(base, denoiser, lora, None if lora is None else f"{spec.strength} {spec.alpha}"),
        base_model_sha256=base,
        denoiser_sha256=denoiser,
        lora_sha256=lora,
        family=family.keys.family,
        resolution=family.resolution,
        prediction_type=family.path.prediction_type,
        space_sha256=_space_of(family),
    )
    return family, facts


def denoiser_label(source: DenoiserSource) -> str:
    """What people call it: the id, the repository and file, or the path."""
    match source:
        case StoredDenoiser(id=found):
            return found
        case HubDenoiser(repo_id=repo_id, file=file):
            return f"{repo_id}/{file}"
        case LocalDenoiser(path=path):
            return path
        case _:
            assert_never(source)


def denoiser_file_of(source: DenoiserSource) -> Path:
    """Where the file is on this machine, once it is; raises `ModelError` where it is not."""
    match source:
        case LocalDenoiser(path=path):
            return Path(path)
        case HubDenoiser():
            return _download(source)
        case StoredDenoiser(id=found):
            raise ModelError(
                "denoiser_not_resolved", f"denoiser {found!r}: the run was not told where its service has this"
            )
        case _:
            assert_never(source)


@torch.no_grad()
def put_denoiser(family: Family, file: Path) -> str:
    """Give the family's denoiser the weights of a file under diffusers' names, every one of them; returns the file's SHA-256."""
    own = family.denoiser.state_dict()
    tensors = _read(file)
    if missing := sorted(own.keys() - tensors.keys()):
        raise ModelError("denoiser_unfit", f"{file.name}: {missing[0]!r} of the model's denoiser is missing")
    if unknown := sorted(tensors.keys() - own.keys()):
        raise ModelError("denoiser_unfit", f"{file.name}: {unknown[0]!r} is no weight of the model's denoiser")
    for name, weight in own.items():
        if tensors[name].shape != weight.shape:
            shapes = f"has the shape {list(tensors[name].shape)}, and in the model it has {list(weight.shape)}"
            raise ModelError("denoiser_unfit", f"{file.name}: {name!r} {shapes}")
        weight.copy_(tensors[name])
    return family.folder.hashes.of(file).hex()


def _read(file: Path) -> Mapping[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as opened:
            return {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118  no mapping
    except FileNotFoundError as error:
        raise ModelError("denoiser_not_found", f"{file}: there is no such file") from error
    except (OSError, SafetensorError) as error:
        raise ModelError("denoiser_unfit", f"{file.name}: no safetensors file; pickled weights are not read") from error


def _download(source: HubDenoiser) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source.repo_id, source.file, revision=source.revision))
    except download_errors() as error:
        what = f"the denoiser {source.repo_id}/{source.file}@{source.revision[:12]}"
        raise hub_error(ModelError, what, "denoiser_not_found", error) from error


def _add_lora(family: Family, here: ContenderSpec) -> str:
    assert here.lora is not None
    file = read_lora(lora_file_of(here.lora), here.alpha)
    if not file.says_alpha:
        beside = "a file of PEFT's does not say its alpha, and the adapter_config.json that does is not with it"
        raise ModelError(
            "lora_alpha_unknown", f"{file.path.name}: {beside}: write its lora_alpha as the contender's alpha"
        )
    components = family.components()
    placed = place(file, components, family.keys)
    merge(components, {name: _at_strength(layers, here.strength) for name, layers in placed.items()})
    return file.sha256


def _at_strength(layers: LoraLayers, strength: float) -> LoraLayers:
    return {module: replace(layer, alpha=layer.alpha * strength) for module, layer in layers.items()}


def _joined(*parts: str | None) -> str:
    return hashlib.sha256("+".join(part or "" for part in parts).encode()).hexdigest()


def _space_of(family: Family) -> str:
    """What two models must share for their predictions to be of the same thing: latents, noise levels, and what is predicted."""
    levels = hashlib.sha256(family.path.snr.float().cpu().numpy().tobytes()).hexdigest()
    shape = "x".join(map(str, family.latent_shape(family.resolution)))
    return _joined(family.image_fingerprint(), family.path.prediction_type, levels, shape)
