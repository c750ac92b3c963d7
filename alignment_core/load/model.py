"""The one place that chooses a model family: a `match` on the family of a checked folder.

What the table of `spec/families.py` says is served has a case that loads, and nothing else has; a test sees that.
"""

from pathlib import Path
from typing import assert_never

import torch
from diffusers import AutoencoderKL, FluxTransformer2DModel, SD3Transformer2DModel, UNet2DConditionModel

from alignment_core.diffusion.path import Path as DiffusionPath
from alignment_core.errors import ModelError
from alignment_core.families.family import Family
from alignment_core.families.flow_schedule import read_flow_schedule
from alignment_core.families.flux import load_flux
from alignment_core.families.flux import path_of as flux_path
from alignment_core.families.flux_configs import PATCH, check_flux
from alignment_core.families.pretrained import check_weights
from alignment_core.families.sd import load_sd
from alignment_core.families.sd import path_of as discrete_path
from alignment_core.families.sd3 import load_sd3
from alignment_core.families.sd3 import path_of as sd3_path
from alignment_core.families.sd3_configs import check_sd3
from alignment_core.families.sd_configs import check_parts
from alignment_core.families.sd_schedule import read_schedule
from alignment_core.families.sdxl import load_sdxl
from alignment_core.families.sdxl_configs import check_xl_parts
from alignment_core.families.single_file import family_of_file
from alignment_core.families.source import ModelFolder, ModelSource, fetch_model, read_json
from alignment_core.hub_errors import download_errors
from alignment_core.spec import (
    AliasSource,
    CatalogSource,
    CheckpointSource,
    HubSource,
    LocalSource,
    SingleFileSource,
)
from alignment_core.spec.families import FamilyName, family_of


def load_model(
    source: ModelSource,
    *,
    device: torch.device,
    frozen_dtype: torch.dtype,
    denoiser_dtype: torch.dtype,
    cache_dir: Path | None = None,
) -> Family:
    """Fetch and load the model; raises `ModelError` when it is missing, of no family that is served, or unfit.

    `cache_dir` remembers the hashes of its files.
    """
    folder = fetch_model(source, cache_dir)
    match folder.family:
        case "sd":
            return load_sd(folder, device=device, frozen_dtype=frozen_dtype, denoiser_dtype=denoiser_dtype)
        case "sdxl":
            return load_sdxl(folder, device=device, frozen_dtype=frozen_dtype, denoiser_dtype=denoiser_dtype)
        case "sd3":
            return load_sd3(folder, device=device, frozen_dtype=frozen_dtype, denoiser_dtype=denoiser_dtype)
        case "flux":
            return load_flux(folder, device=device, frozen_dtype=frozen_dtype, denoiser_dtype=denoiser_dtype)
        case _:
            assert_never(folder.family)


def family_of_source(source: ModelSource) -> FamilyName | None:
    """What a model says of its family before anything else of it is read; None where that cannot be told, and loading says why."""
    try:
        match source:
            case SingleFileSource(path=path):
                return family_of_file(Path(path))
            case LocalSource(path=path):
                index = Path(path) / "model_index.json"
            case HubSource():
                index = _index_of(source)
            case CatalogSource() | CheckpointSource() | AliasSource():
                return None
            case _:
                assert_never(source)
        return family_of(read_json(index).get("_class_name"))
    except (ModelError, *download_errors()):
        return None


def _index_of(source: HubSource) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(source.repo_id, "model_index.json", revision=source.revision))


def check_headers(folder: ModelFolder) -> None:
    """What loading refuses by the names and shapes of the weights of the denoiser and the VAE: raises the same `ModelError`."""
    match folder.family:
        case "sd" | "sdxl":
            check_weights(folder, "unet", UNet2DConditionModel)
        case "sd3":
            check_weights(folder, "transformer", SD3Transformer2DModel)
        case "flux":
            check_weights(folder, "transformer", FluxTransformer2DModel)
        case _:
            assert_never(folder.family)
    check_weights(folder, "vae", AutoencoderKL)


def path_of(folder: ModelFolder, resolution: int) -> DiffusionPath:
    """The noise levels of a folder that has been checked, and the steps that images of so many pixels are sampled at."""
    match folder.family:
        case "sd" | "sdxl":
            return discrete_path(read_schedule(folder), torch.device("cpu"))
        case "sd3":
            return sd3_path(read_flow_schedule(folder))
        case "flux":
            vae = read_json(folder.path / "vae" / "config.json")
            side = resolution // (PATCH * 2 ** (len(vae["block_out_channels"]) - 1))
            return flux_path(read_flow_schedule(folder, may_be_dynamic=True), side**2)
        case _:
            assert_never(folder.family)


def check_model(folder: ModelFolder) -> None:
    """What loading refuses by the configs alone: raises the same `ModelError`, without any weight."""
    match folder.family:
        case "sd":
            check_parts(folder)
            read_schedule(folder)
        case "sdxl":
            check_xl_parts(folder)
            read_schedule(folder)
        case "sd3":
            check_sd3(folder)
            read_flow_schedule(folder)
        case "flux":
            check_flux(folder)
            read_flow_schedule(folder, may_be_dynamic=True)
        case _:
            assert_never(folder.family)
