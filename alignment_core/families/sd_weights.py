"""The policy's weights of SD and SDXL on disk, in the two forms that users' tools read."""

import json
import shutil
from pathlib import Path
from typing import Any, assert_never

from diffusers import ModelMixin, StableDiffusionXLPipeline, UNet2DConditionModel
from peft import get_peft_model_state_dict
from peft.tuners.lora import LoraConfig
from transformers import PreTrainedModel

from alignment_core.actors.actors import Actors
from alignment_core.actors.reference_weights import ADAPTER
from alignment_core.checkpoints import STATE, take_over
from alignment_core.families.family import Family
from alignment_core.families.joined_lora import (
    OWN,
    config_of_adapter,
    joined_layers,
    load_own,
    own_layers,
    save_own,
    trained_parts,
    write_diffusers,
    write_kohya,
)
from alignment_core.families.sd_kohya import kohya_layers, kohya_metadata
from alignment_core.families.source import ModelFolder
from alignment_core.safetensors_files import order_metadata, write_safetensors
from alignment_core.spec.families import FAMILIES

LORA_FILE = "pytorch_lora_weights.safetensors"
KOHYA_FILE = "pytorch_lora_weights_kohya.safetensors"  # diffusers looks for names that end in the first one's
PIPELINE_FOLDER = "pipeline"


def save_policy(family: Family, actors: Actors, folder: Path) -> None:
    """Write the LoRA as `pipeline.load_lora_weights(folder)` reads it and as kohya's, or a whole folder under `pipeline/`."""
    match actors.kind:
        case "full":
            _save_pipeline(family, actors, folder / PIPELINE_FOLDER)
        case "lora" if family.merged:
            _save_joined(family, actors, folder)
        case "lora":
            _save_lora(family, actors, folder)
        case _:
            assert_never(actors.kind)


def _save_pipeline(family: Family, actors: Actors, folder: Path) -> None:
    copy_frozen_parts(family.folder, folder, _frozen_parts(family.folder))
    unet = trained_parts(actors, "unet")["unet"]
    unet.save_pretrained(folder / "unet", safe_serialization=True)
    forget_origin(folder / "unet" / "config.json")
    for name in family.merged.keys() - {"unet"}:
        _save_text_encoder(family.components()[name], folder / name)


def _save_lora(family: Family, actors: Actors, folder: Path) -> None:
    parts, saved = trained_parts(actors, "unet"), dict[str, Any]()
    for component, part in parts.items():
        # PEFT's own key names: diffusers' older ones cover attention alone, and a file with both loses half of itself.
        saved[f"{component}_lora_layers"] = get_peft_model_state_dict(part, adapter_name=ADAPTER)
        # Rank and alpha travel in the file's header: without them every loader assumes alpha = rank.
        saved[f"{component}_lora_adapter_metadata"] = _described(config_of_adapter(part))
    # SD's files are the same, without a second text encoder.
    StableDiffusionXLPipeline.save_lora_weights(folder, weight_name=LORA_FILE, safe_serialization=True, **saved)
    order_metadata(folder / LORA_FILE)
    config = config_of_adapter(parts["unet"])
    metadata = _kohya_header(family, rank=config.r, alpha=config.lora_alpha)
    if family.keys.family == "sd" and len(parts) == 1:
        # Under diffusers' names of the modules, which SD's have had here from the first.
        write_safetensors(folder / KOHYA_FILE, kohya_layers(saved["unet_lora_layers"], config.lora_alpha), metadata)
    else:
        configs = {name: _config_of(part) for name, part in parts.items()}
        layers = {name: own_layers(part) for name, part in parts.items()}
        write_kohya(layers, family.keys, configs, folder / KOHYA_FILE, metadata)


def _described(config: LoraConfig) -> dict[str, Any]:
    """The config without the folder that transformers loaded the network from: a path of the operator's."""
    return {**config.to_dict(), "target_modules": sorted(config.target_modules or ()), "base_model_name_or_path": None}


def _save_joined(family: Family, actors: Actors, folder: Path) -> None:
    layers = joined_layers(actors, family.merged, "unet")
    configs = {name: _config_of(model) for name, model in family.components().items()}
    write_diffusers(layers, folder / LORA_FILE)
    metadata = _kohya_header(family, rank=1, alpha=1.0)
    write_kohya(layers, family.keys, configs, folder / KOHYA_FILE, metadata)
    save_own(actors, folder)


def _kohya_header(family: Family, *, rank: int, alpha: float) -> dict[str, str]:
    unet = family.components()["unet"].config
    plain = kohya_metadata(rank=rank, alpha=alpha, text_width=int(unet["cross_attention_dim"]))
    if family.keys.family == "sd":
        return plain
    return {**plain, "ss_v2": "False", "ss_base_model_version": family.keys.base_version(unet)}


def _config_of(model: PreTrainedModel | ModelMixin) -> dict[str, Any]:
    """The two libraries keep it in two ways."""
    return model.config.to_dict() if isinstance(model, PreTrainedModel) else dict(model.config)  # pyright: ignore


def _save_text_encoder(text_encoder: PreTrainedModel, folder: Path) -> None:
    """In place of the copied one, which does not have what was merged into it."""
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    text_encoder.save_pretrained(folder, safe_serialization=True)
    forget_origin(folder / "config.json")


def forget_origin(config: Path) -> None:
    """Take out where diffusers loaded the model from: a path of the operator's, and another one on another worker."""
    values = json.loads(config.read_text(encoding="utf-8"))
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def copy_frozen_parts(source: ModelFolder, target: Path, parts: tuple[str, ...]) -> None:
    """Copy everything that was not trained as it is; the safety checker, which is never loaded, is left out."""
    for component in parts:
        (target / component).mkdir(parents=True)
        for file in source.config_files(component):
            shutil.copyfile(file, target / component / _without_variant(file.name, source.variant))
        for file in source.weight_files(component):
            take_over(target / component / _without_variant(file.name, source.variant), file)
        for index in (source.path / component).glob("*.index*.json"):
            if (source.variant is None) == (".index.json" in index.name):
                text = _without_variant(index.read_text(encoding="utf-8"), source.variant)
                (target / component / _without_variant(index.name, source.variant)).write_text(text, encoding="utf-8")
    index = json.loads((source.path / "model_index.json").read_text(encoding="utf-8"))
    left_out = {"safety_checker": [None, None], "feature_extractor": [None, None], "requires_safety_checker": False}
    (target / "model_index.json").write_text(json.dumps({**index, **left_out}, indent=2), encoding="utf-8")


def _frozen_parts(source: ModelFolder) -> tuple[str, ...]:
    encoders = FAMILIES[source.family].text_encoders
    return ("vae", *encoders, *(name.replace("text_encoder", "tokenizer") for name in encoders), "scheduler")


def _without_variant(name: str, variant: str | None) -> str:
    return name.replace(f".{variant}", "") if variant else name


def load_policy(actors: Actors, folder: Path) -> None:
    """Put the weights that `save_policy` wrote back into the policy, exactly."""
    match actors.kind:
        case "full":
            _load_unet(actors, folder / PIPELINE_FOLDER)
        case "lora":
            _load_lora(actors, folder)
        case _:
            assert_never(actors.kind)


def _load_unet(actors: Actors, pipeline: Path) -> None:
    saved = UNet2DConditionModel.from_pretrained(
        pipeline, subfolder="unet", use_safetensors=True, local_files_only=True
    )
    actors.load_whole(saved.state_dict())


def _load_lora(actors: Actors, folder: Path) -> None:
    own = folder / STATE / OWN  # beside a LoRA that holds what was merged too
    load_own(actors, own if own.is_file() else folder / LORA_FILE, "unet")
