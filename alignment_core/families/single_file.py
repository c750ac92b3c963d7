"""A model in one `.safetensors` file under the original names, as a diffusers folder: unpacked once, then read like any other.

diffusers' own converter does it, on this machine alone: configs are bundled (`single_file_configs`), or a folder that is given
with the file, and nothing is fetched. What it leaves out or makes up is found when the folder is loaded, weight by weight.
"""

import hashlib
import json
import shutil
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from alignment_core.errors import ModelError
from alignment_core.families.single_file_configs import SingleFileFamily, write_configs
from alignment_core.families.source import ModelSource, read_json
from alignment_core.model_files import UNPACKED_FROM, UnpackedFrom
from alignment_core.quiet import only_errors
from alignment_core.spec import LocalSource, SingleFileSource

FORMAT = "1"  # of what is unpacked; a new one is unpacked anew
SUFFIX = ".safetensors"
FIRST_LAYER = "model.diffusion_model.input_blocks.0.0.weight"
LATENT_CHANNELS = 4
SECOND_ENCODER = "conditioner.embedders.1."
# A weight by which a kind is known, and what it is.
_SERVED: Mapping[str, SingleFileFamily] = {
    "conditioner.embedders.1.model.ln_final.weight": "sdxl",
    "cond_stage_model.transformer.text_model.final_layer_norm.weight": "sd",
    "cond_stage_model.transformer.final_layer_norm.weight": "sd",
}
_OTHERS = {
    "cond_stage_model.model.ln_final.weight": "Stable Diffusion 2.x",
    "conditioner.embedders.0.model.ln_final.weight": "SDXL's refiner",
    "model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight": "Stable Diffusion 3",
    "model.diffusion_model.double_blocks.0.img_attn.qkv.weight": "FLUX",
    "double_blocks.0.img_attn.qkv.weight": "FLUX",
    "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight": "a LoRA: name it in start.lora",
}
_PIPELINES = {"sd": StableDiffusionPipeline, "sdxl": StableDiffusionXLPipeline}
# What trainers of v-prediction models put beside the weights, and what they mean.
V_PREDICTION, ZERO_TERMINAL_SNR = "v_pred", "ztsnr"
V_IN_HEADER = "v"


@dataclass(frozen=True)
class Header:
    """The names and shapes of a file's weights, and the entries of its header."""

    shapes: Mapping[str, tuple[int, ...]]
    dtypes: frozenset[str]
    entries: Mapping[str, str]


_NETWORKS: Mapping[str, Callable[[Any], Any]] = {
    "unet": UNet2DConditionModel.from_config,
    "vae": AutoencoderKL.from_config,
    "text_encoder": lambda config: CLIPTextModel(CLIPTextConfig.from_dict(config)),
    "text_encoder_2": lambda config: CLIPTextModelWithProjection(CLIPTextConfig.from_dict(config)),
}


def in_a_folder(source: ModelSource, cache_dir: Path) -> ModelSource:
    """The source, or where it is a single file the folder that this is unpacked to."""
    if not isinstance(source, SingleFileSource):
        return source
    config = None if source.config is None else Path(source.config)
    return LocalSource(path=str(unpacked(Path(source.path), config, cache_dir)))


def unpacked(file: Path, config: Path | None, cache_dir: Path) -> Path:
    """The diffusers folder of a single file, in `cache_dir`; made unless it is there.

    `config` is a diffusers folder whose configs, scheduler and tokenizer are the model's, for shapes or schedules that are not the
    published ones. Raises `ModelError` for a file that is no safetensors, of another kind of model, or that the converter
    cannot read.
    """
    header = _read_header(file)
    family = _family_of(file, header)
    folder = cache_dir / "models" / _key(file, config)
    if not (folder / "model_index.json").is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".unpacking-") as temporary:
            partial = Path(temporary) / folder.name
            _unpack(file, config, family, header, Path(temporary) / "config", partial)
            partial.replace(folder)
    note = UnpackedFrom.of(file).model_dump_json()
    (folder / UNPACKED_FROM).write_text(note, encoding="utf-8")  # each time: it says when the folder was last used, too
    return folder


def family_of_file(file: Path) -> SingleFileFamily:
    """The family of a single file by its header; raises `ModelError` like `unpacked`."""
    return _family_of(file, _read_header(file))


def write_headers(file: Path, config: Path | None, folder: Path) -> None:
    """The configs of the folder that a file is unpacked to, and its weights as far as the headers of their files go.

    Nothing is unpacked. Raises `ModelError` like `unpacked`, but for what only the converter finds.
    """
    header = _read_header(file)
    _write_configs(config, _family_of(file, header), folder)
    _say_prediction_type(folder / "scheduler" / "scheduler_config.json", header)
    for part, network in _NETWORKS.items():
        if (folder / part).is_dir():
            with torch.device("meta"):
                weights = network(read_json(folder / part / "config.json")).state_dict()
            shapes = {name: {"dtype": "F32", "shape": list(one.shape)} for name, one in weights.items()}
            content = json.dumps(shapes).encode()
            (folder / part / f"model{SUFFIX}").write_bytes(struct.pack("<Q", len(content)) + content)


def _read_header(file: Path) -> Header:
    if file.suffix != SUFFIX:
        raise ModelError("model_unsupported", f"{file.name}: expected a {SUFFIX} file; pickled weights are not read")
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118  no mapping
            shapes = {name: tuple(one.get_shape()) for name, one in slices.items()}
            return Header(shapes, frozenset(one.get_dtype() for one in slices.values()), opened.metadata() or {})
    except FileNotFoundError as error:
        raise ModelError("model_not_found", f"{file}: there is no such file") from error
    except (OSError, SafetensorError) as error:
        raise ModelError(
            "model_unsupported", f"{file.name}: no safetensors file; pickled weights are not read"
        ) from error


def _family_of(file: Path, header: Header) -> SingleFileFamily:
    """Which family a file is of; raises `ModelError` that says what it is instead."""
    found: SingleFileFamily | None = next((family for key, family in _SERVED.items() if key in header.shapes), None)
    if found is None:
        other = next((what for key, what in _OTHERS.items() if key in header.shapes), None)
        what = f"it is of {other}" if other else f"it has neither {' nor '.join(list(_SERVED)[:2])}"
        raise ModelError(
            "model_unsupported",
            f"{file.name}: {what}; expected a whole checkpoint of Stable Diffusion 1.x or SDXL, text encoder and VAE included",
        )
    channels = header.shapes.get(FIRST_LAYER, (0, 0))[1]
    if channels != LATENT_CHANNELS:
        raise ModelError(
            "model_unsupported",
            f"{file.name}: {FIRST_LAYER} takes {channels} channels; expected {LATENT_CHANNELS}, those of the latents: no "
            "inpainting or editing model",
        )
    return found


def _key(file: Path, config: Path | None) -> str:
    """The name of the unpacked folder: by the contents of the file and of the configs."""
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256")
    digest.update(FORMAT.encode())
    for path in _config_files(config) if config is not None else []:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _config_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("**/*") if path.suffix in (".json", ".txt") and path.is_file())


def _unpack(
    file: Path, config: Path | None, family: SingleFileFamily, header: Header, configs: Path, target: Path
) -> None:
    _write_configs(config, family, configs)
    try:
        with only_errors():
            dtype = _widest(header)
            encoders = {"text_encoder_2": _second_encoder(file, configs, dtype)} if family == "sdxl" else {}
            pipeline = _PIPELINES[family].from_single_file(
                str(file), config=str(configs), local_files_only=True, torch_dtype=dtype, **encoders
            )
            pipeline.save_pretrained(target, safe_serialization=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, NotImplementedError, SafetensorError) as error:
        first_line = str(error).strip().partition("\n")[0]
        hint = "Give the model's own configs as `config` where its shapes are not the published ones."
        raise ModelError("model_invalid", f"{file.name}: could not be unpacked: {first_line}", hint=hint) from error
    for name in (
        "tokenizer",
        "tokenizer_2",
        "scheduler",
    ):  # as they were given: the libraries write them in forms of their own
        if (configs / name).is_dir():
            shutil.rmtree(target / name)
            shutil.copytree(configs / name, target / name)
    _say_prediction_type(target / "scheduler" / "scheduler_config.json", header)


def _second_encoder(file: Path, configs: Path, dtype: torch.dtype) -> CLIPTextModelWithProjection:
    """SDXL's second text encoder from the weights of its own name alone: from all, the converter takes the first of its width."""
    with safe_open(file, framework="pt") as opened:
        names = [name for name in opened.keys() if name.startswith(SECOND_ENCODER)]  # noqa: SIM118  no mapping
        own = {name: opened.get_tensor(name) for name in names}
    return create_diffusers_clip_model_from_ldm(
        CLIPTextModelWithProjection,
        checkpoint=own,
        subfolder="text_encoder_2",
        config=str(configs),
        torch_dtype=dtype,
        local_files_only=True,
    )


def _write_configs(config: Path | None, family: SingleFileFamily, target: Path) -> None:
    """The configs that are given with the file, or the bundled ones."""
    if config is None:
        write_configs(family, target)
        return
    for path in _config_files(config):
        if ".index." not in path.name:
            (target / path.relative_to(config)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / path.relative_to(config))


def _widest(header: Header) -> torch.dtype:
    """The precision that loses nothing of the file's."""
    if header.dtypes & {"F32", "F64"}:
        return torch.float32
    return torch.bfloat16 if header.dtypes == {"BF16"} else torch.float16 if header.dtypes == {"F16"} else torch.float32


def _say_prediction_type(scheduler: Path, header: Header) -> None:
    """What the file says of its objective goes into the schedule; one that says nothing has that of the configs."""
    declared: dict[str, Any] = {}
    if V_PREDICTION in header.shapes or header.entries.get("modelspec.prediction_type") == V_IN_HEADER:
        declared["prediction_type"] = "v_prediction"
    if ZERO_TERMINAL_SNR in header.shapes:
        declared |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if declared:
        scheduler.write_text(json.dumps({**read_json(scheduler), **declared}, indent=2), encoding="utf-8")
