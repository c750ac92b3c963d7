"""A whole model: as a diffusers folder, as its denoiser alone, and as the single file that other tools read."""

import shutil
from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from alignment_core.exports.lora_formats import model_spec
from alignment_core.exports.source import ExportSource
from alignment_core.safetensors_files import write_safetensors
from alignment_core.spec.exports import ONE_FILE


def write_denoiser(source: ExportSource, out: Path) -> Iterator[float]:
    """Of a full fine-tune, what was trained: `UNet2DConditionModel.from_pretrained(out / "unet")`."""
    component = source.keys.components[0]
    shutil.copytree(source.base.path / component, out / component)
    yield 1.0


def write_merged(source: ExportSource, out: Path) -> Iterator[float]:
    """`DiffusionPipeline.from_pretrained(out)`: W + B A alpha / rank in the base model's precision, all else as it was."""
    trained = source.trained
    total, done = sum(trained.size_bytes(component) for component in trained.components), 0
    for num_bytes in trained.write(out):
        done += num_bytes
        yield done / total


def write_single_file(source: ExportSource, out: Path) -> Iterator[float]:
    """`from_single_file`, ComfyUI, A1111: every weight of the same model under the names of the original code."""
    trained, keys = source.trained, source.keys
    there = [component for component in keys.components if component in trained.components]
    found: dict[str, Tensor] = {}
    for number, component in enumerate(there, start=1):
        found |= keys.to_original(component, trained.weights(component), trained.config(component))
        yield number / (len(there) + 1)  # writing is the last part
    write_safetensors(out / ONE_FILE["single_file"], found, {"format": "pt", **model_spec(source)})
    yield 1.0
