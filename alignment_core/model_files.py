"""What a diffusers folder says of its model in JSON and in the headers of its weights: read without loading anything.

Pure data like `reports`, so that the service reads folders that it can see by the same code as the library.
"""

import hashlib
import json
import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from alignment_core.spec.families import FAMILIES, FamilyFacts, FamilyName, family_of, refusal_of, served

LONGEST_JSON_BYTES = 4 * 2**20
LONGEST_HEADER_BYTES = 64 * 2**20
LAYER_DIMENSIONS = (2, 4)  # of the weights of linear layers and of convolutions, which a LoRA can be added to
TRAINING_TIMESTEPS = 1000  # diffusers' value where a scheduler's config has none
READER = f"4: {', '.join(served())}"  # who reads: a number to raise where reading learns more, and what is trained
DENOISERS = tuple(dict.fromkeys(facts.denoiser for facts in FAMILIES.values()))


class ModelProblem(BaseModel):
    """Why a run refuses the model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    message: str


UNPACKED_FROM = "unpacked_from.json"


class UnpackedFrom(BaseModel):
    """Beside a model that was unpacked from one file into a cache: which file that was, so that it is told when it is no more."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    mtime_ns: int

    @classmethod
    def of(cls, file: Path) -> Self:
        """As the file is now; links are followed, since runs see files by links."""
        return cls(path=str(file.resolve()), mtime_ns=file.stat().st_mtime_ns)


class ModelReport(BaseModel):
    """What could be read; None where it could not, as the folder may be on the workers' machines alone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pipeline_class: str | None = Field(default=None, description="`_class_name` of the model's `model_index.json`.")
    resolution: int | None = Field(default=None, description="Pixels of the side that it draws.")
    prediction_type: str | None = Field(default=None, description="`epsilon`, `v_prediction`, or `velocity` (flow).")
    num_timesteps: int | None = Field(default=None, description="Of the scheduler that it was trained with.")
    num_parameters: int | None = Field(default=None, description="Of its denoiser.")
    layers: dict[str, tuple[int, ...]] | None = Field(
        default=None, description="The denoiser's linear layers and convolutions by name: the shapes of their weights."
    )
    unfit_steps: frozenset[int] = Field(default=frozenset(), description="Numbers of sampling steps that do not fit.")
    resolution_unit: int | None = Field(default=None, description="Pixels that the side of an image is a multiple of.")
    least_eta: dict[int, tuple[float, ...]] = Field(
        default={},
        description="By number of sampling steps, the first hundred: the `eta` from which on each step, noisiest first, has noise "
        "enough to be trained.",
    )
    last_step_is_silent: bool = Field(
        default=False, description="Whether the last sampling step adds no noise, whatever eta: it has no density."
    )
    part_parameters: dict[str, int] = Field(
        default={},
        description="Of each folder of weights beside the denoiser's (`vae`, `text_encoder` ...), its parameters.",
    )
    latent_stride: int = Field(default=8, description="Pixels that a latent stands for, along one side.")
    norms_queries: bool = Field(default=False, description="Whether its attention normalises queries and keys.")
    vae_channels: int | None = Field(default=None, description="Of the VAE where it has every pixel.")
    decoder_layers: dict[str, tuple[int, ...]] | None = Field(
        default=None, description="Those of the VAE's decoder, as `layers` has the denoiser's."
    )
    clip_tokens: int | None = Field(default=None, description="Of a prompt that its first text encoder reads.")
    problem: ModelProblem | None = Field(default=None, description="Why a run would refuse it.")
    stamp: str | None = Field(default=None, description="SHA-256 of all that was read.")

    @property
    def family(self) -> FamilyName | None:
        return family_of(self.pipeline_class)

    def silent_steps(self, num_steps: int, eta: float) -> frozenset[int]:
        """Indices of the steps, 0 the noisiest, that have too little noise to be trained, as far as is known."""
        least = self.least_eta.get(num_steps)
        if least is None:
            return frozenset({num_steps - 1} if self.last_step_is_silent else ())
        return frozenset(index for index, one in enumerate(least) if eta < one)

    def has_layer(self, suffix: str) -> bool:
        """Whether a LoRA for this suffix would find a layer."""
        return any(_ends_in(name, suffix) for name in self.layers or ())

    def adapted(self, suffixes: Sequence[str]) -> set[str]:
        """The layers that a LoRA of these target modules changes."""
        return {name for name in self.layers or () if any(_ends_in(name, suffix) for suffix in suffixes)}

    def num_adapter_parameters(self, suffixes: Sequence[str], rank: int) -> int | None:
        """Parameters of a LoRA of these target modules; None where the layers are not known."""
        if self.layers is None:
            return None
        adapted = [self.layers[name] for name in self.adapted(suffixes)]
        return sum(rank * (out + math.prod(into)) for out, *into in adapted)

    @property
    def targets(self) -> tuple[str, ...]:
        """What `target_modules` may name: the last parts of the layers' names, such as `to_q` and `to_out.0`."""
        return tuple(sorted({_last_part(name) for name in self.layers or ()}))


def read_model_files(folder: Path) -> ModelReport:
    """What the files of a folder say; a class that is not trained is its problem."""
    pipeline_class = (_json(folder / "model_index.json") or {}).get("_class_name")
    family = family_of(pipeline_class)
    facts = None if family is None else FAMILIES[family]
    denoiser = facts.denoiser if facts is not None else next((n for n in DENOISERS if (folder / n).is_dir()), "unet")
    shapes = _shapes(folder / denoiser)
    scheduler = _json(folder / "scheduler" / "scheduler_config.json")
    refusal = None if pipeline_class is None else refusal_of(pipeline_class)
    levels = (_json(folder / "vae" / "config.json") or {}).get("block_out_channels")
    return ModelReport(
        pipeline_class=pipeline_class if isinstance(pipeline_class, str) else None,
        resolution=_resolution(_json(folder / denoiser / "config.json"), _json(folder / "vae" / "config.json"), facts),
        resolution_unit=_unit(_json(folder / denoiser / "config.json"), _json(folder / "vae" / "config.json"), facts),
        prediction_type="velocity" if facts is not None and facts.is_flow else _text(scheduler, "prediction_type"),
        num_timesteps=None if scheduler is None else _count(scheduler.get("num_train_timesteps", TRAINING_TIMESTEPS)),
        num_parameters=None if shapes is None else sum(map(math.prod, shapes.values())),
        layers=None if shapes is None else dict(layers_of(shapes)),
        norms_queries=any(name.endswith("norm_q.weight") for name in shapes or ()),
        part_parameters={} if facts is None else dict(_parts(folder, [n for n in facts.weighed if n != denoiser])),
        latent_stride=2 ** (len(levels) - 1) if isinstance(levels, list) and levels else 8,
        vae_channels=_count(levels[0]) if isinstance(levels, list) and levels else None,
        decoder_layers=_decoder_layers(_shapes(folder / "vae")),
        clip_tokens=_count((_json(folder / "text_encoder" / "config.json") or {}).get("max_position_embeddings")),
        problem=None if refusal is None else ModelProblem(code="model_unsupported", message=refusal),
    )


def stamp_of(folder: Path) -> str | None:
    """SHA-256 of the configs and of the headers of all weights, or of one file's header; None for what is neither."""
    if folder.is_file():
        return _stamp_of_file(folder)
    if not (folder / "model_index.json").is_file():
        return None
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.json"), *folder.glob("*/*.json"), *folder.glob("*/*.safetensors")]):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        try:
            content = header_of(file) if file.suffix == ".safetensors" else file.read_bytes()
        except (OSError, ValueError):
            content = b"unreadable"
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _stamp_of_file(file: Path) -> str | None:
    try:
        return hashlib.sha256(header_of(file)).hexdigest()
    except (OSError, ValueError):
        return None


def header_of(file: Path) -> bytes:
    """The JSON at the start of a safetensors file; `ValueError` for what is none."""
    with file.open("rb") as opened:
        start = opened.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else LONGEST_HEADER_BYTES + 1
        if length > LONGEST_HEADER_BYTES:
            raise ValueError(f"{file} is no safetensors file")
        return opened.read(length)


def _resolution(
    denoiser: Mapping[str, Any] | None, vae: Mapping[str, Any] | None, facts: FamilyFacts | None
) -> int | None:
    """Latents times what the VAE makes of each; what the VAE says, or that of the family's published models, without a size."""
    levels = (vae or {}).get("block_out_channels")
    size = (denoiser or {}).get("sample_size")
    side = max(size, default=None) if isinstance(size, list) and all(map(_count, size)) else _count(size)
    if denoiser is None or not isinstance(levels, list):
        return None
    if side is None:
        return _count((vae or {}).get("sample_size")) or (None if facts is None else facts.resolution)
    return side * 2 ** (len(levels) - 1)


def _unit(denoiser: Mapping[str, Any] | None, vae: Mapping[str, Any] | None, facts: FamilyFacts | None) -> int | None:
    """Where the denoiser takes places together: as many pixels; a U-Net takes what is left over too."""
    levels = (vae or {}).get("block_out_channels")
    if facts is None or facts.denoiser != "transformer" or not isinstance(levels, list):
        return None
    patch = facts.patch if facts.patch > 1 else _count((denoiser or {}).get("patch_size")) or 1
    return patch * 2 ** (len(levels) - 1)


def _parts(folder: Path, names: Iterable[str]) -> Iterable[tuple[str, int]]:
    for name in names:
        if (shapes := _shapes(folder / name)) is not None:
            yield name, sum(map(math.prod, shapes.values()))


def _shapes(folder: Path) -> dict[str, list[int]] | None:
    """The tensors of all files of one variant, by name."""
    files = sorted(folder.glob("*.safetensors"))
    try:
        found = [shapes_in(file) for file in files]
    except (OSError, ValueError):
        return None
    return {name: shape for tensors in found for name, shape in tensors.items()} if found else None


def shapes_in(file: Path) -> dict[str, list[int]]:
    """The shapes of a safetensors file's tensors; `ValueError` for what is none."""
    return dict(_tensors(file, file.stat().st_mtime_ns))


@lru_cache(maxsize=64)
def _tensors(file: Path, _modified_ns: int) -> tuple[tuple[str, list[int]], ...]:
    entries = json.loads(header_of(file)).items()
    return tuple((name, entry["shape"]) for name, entry in entries if "shape" in entry)


def layers_of(shapes: Mapping[str, list[int]]) -> Iterable[tuple[str, tuple[int, ...]]]:
    """Linear layers and convolutions by name, with the shapes of their weights."""
    for name, shape in sorted(shapes.items()):
        if name.endswith(".weight") and len(shape) in LAYER_DIMENSIONS:
            yield name.removesuffix(".weight"), tuple(shape)


def _decoder_layers(shapes: Mapping[str, list[int]] | None) -> dict[str, tuple[int, ...]] | None:
    found = {name: shape for name, shape in layers_of(shapes or {}) if name.startswith("decoder.")}
    return found or None


def _ends_in(name: str, suffix: str) -> bool:
    """As peft matches target modules."""
    return name == suffix or name.endswith(f".{suffix}")


def _last_part(name: str) -> str:
    *_, before, last = ("", *name.split("."))
    return f"{before}.{last}" if last.isdigit() and before else last


def _json(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_bytes()) if path.stat().st_size <= LONGEST_JSON_BYTES else None
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _text(values: Mapping[str, Any] | None, key: str) -> str | None:
    found = (values or {}).get(key)
    return found if isinstance(found, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
