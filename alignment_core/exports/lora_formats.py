"""A LoRA by itself: for PEFT, for diffusers, and for the tools that read kohya's files."""

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from torch import Tensor

from alignment_core.exports.saved_lora import DOWN, LORA_FILE, UP
from alignment_core.exports.source import ExportSource
from alignment_core.families import joined_lora
from alignment_core.families.keys import LoraLayers
from alignment_core.safetensors_files import write_safetensors
from alignment_core.spec.exports import ONE_FILE

PEFT_WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PEFT_PREFIX = "base_model.model."


def write_diffusers(source: ExportSource, out: Path) -> Iterator[float]:
    """`pipeline.load_lora_weights(out)`: the very file that training saved, rank and alpha in its header."""
    shutil.copyfile(source.checkpoint / LORA_FILE, out / LORA_FILE)
    yield 1.0


def write_peft(source: ExportSource, out: Path) -> Iterator[float]:
    """`PeftModel.from_pretrained(pipeline.unet, out / "unet")`: an adapter for each component that was trained."""
    components = source.lora.components
    for number, (component, layers) in enumerate(components.items(), start=1):
        folder = out / component
        folder.mkdir()
        write_safetensors(folder / PEFT_WEIGHTS, _peft_tensors(layers), {"format": "pt"})
        config = {**source.lora.configs[component], "base_model_name_or_path": None, "inference_mode": True}
        (folder / PEFT_CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        yield number / len(components)


def write_kohya(source: ExportSource, out: Path) -> Iterator[float]:
    """One file under kohya's names, the alpha of each layer beside it: without one, tools take alpha for the rank."""
    layers = source.lora.components
    configs = {component: source.trained.config(component) for component in layers}
    joined_lora.write_kohya(layers, source.keys, configs, out / ONE_FILE["kohya"], _kohya_header(source))
    yield 1.0


def _peft_tensors(layers: LoraLayers) -> dict[str, Tensor]:
    found = {}
    for module, layer in layers.items():
        found[f"{PEFT_PREFIX}{module}{DOWN}"], found[f"{PEFT_PREFIX}{module}{UP}"] = layer.down, layer.up
    return found


def _kohya_header(source: ExportSource) -> dict[str, str]:
    """What UIs sort LoRAs by, beside the names of https://github.com/Stability-AI/ModelSpec."""
    base_version = source.keys.base_version(source.trained.config(source.keys.components[0]))
    return {
        "format": "pt",
        "ss_network_module": "networks.lora",
        "ss_base_model_version": base_version,
        "ss_v2": str(base_version.startswith("sd_v2")),
        **model_spec(source, "/lora"),
    }


def model_spec(source: ExportSource, suffix: str = "") -> Mapping[str, str]:
    """The header entries of a file of its own, by https://github.com/Stability-AI/ModelSpec."""
    label = source.sources.label
    architecture = source.keys.architecture(source.trained.config(source.keys.components[0]))
    return {
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": architecture + suffix,
        "modelspec.implementation": source.keys.implementation,
        "modelspec.title": label.job_name or label.job_id or f"step {source.manifest.step}",
        "modelspec.date": source.manifest.created_at.isoformat(timespec="seconds"),
    }
