"""The LoRA that a run starts from: its file, on this machine; then in the model's weights, or as the adapter that is trained."""

import contextlib
import hashlib
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import assert_never

from torch import Tensor

from alignment_core.actors.actors import Actors
from alignment_core.actors.reading_network import parts_of
from alignment_core.actors.reference_weights import lora_layers
from alignment_core.errors import ModelError
from alignment_core.families.family import Family
from alignment_core.families.keys import LoraLayers
from alignment_core.families.lora_file import PEFT_CONFIG, LoraFile, read_lora
from alignment_core.families.lora_places import place
from alignment_core.families.merge import merge
from alignment_core.hub_errors import download_errors, hub_error
from alignment_core.reports import StartingPoint
from alignment_core.spec.sources import CheckpointSource
from alignment_core.spec.start import ALPHA_UNKNOWN, HubLora, LocalLora, LoraSource, StartSpec, StoredLora
from alignment_core.spec.training import LoraAdapter

# Where a folder has its LoRA: one of diffusers' or of a checkpoint, or one of PEFT's.
FILES_OF_A_FOLDER = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")


@dataclass(frozen=True)
class StartingLora:
    """A LoRA whose layers are those of the model."""

    spec: StartSpec
    file: LoraFile
    placed: Mapping[str, LoraLayers]
    label: str

    def initial_model_sha256(self, base_model_sha256: str) -> str:
        """What the initial model is known by: the base model's hash, and the LoRA's where it is part of it."""
        if self.spec.initial == "base":
            return base_model_sha256
        identity = f"{base_model_sha256}+{self.file.sha256}+{self.spec.alpha}"
        return hashlib.sha256(identity.encode()).hexdigest()

    def described(self) -> StartingPoint:
        """What the report says of it."""
        assert self.spec.initial is not None, "the spec is resolved"
        return StartingPoint(
            lora=self.label,
            lora_sha256=self.file.sha256,
            format=self.file.format,
            num_layers=sum(len(layers) for layers in self.placed.values()),
            mode=self.spec.mode,
            initial=self.spec.initial,
        )


def load_start(start: StartSpec, label: str, family: Family) -> StartingLora:
    """Read the LoRA and find its layers; `merge` adds them to the model's weights here, before anything else sees those.

    Raises `ModelError` with the key of the file that is not understood, or that the model has no layer for.
    """
    file = read_lora(lora_file_of(start.lora), start.alpha)
    if not file.says_alpha:
        raise ModelError("lora_alpha_unknown", f"{file.path.name}: {ALPHA_UNKNOWN}")
    components = family.components()
    found = StartingLora(start, file, place(file, components, family.keys), label)
    match start.mode:
        case "merge":
            merge(components, found.placed)
            family.merged = found.placed
        case "train":
            _refuse_other_components(found, trained=set(parts_of(family.denoiser)) - {""} or {next(iter(components))})
        case _:
            assert_never(start.mode)
    return found


def begin_with(actors: Actors, start: StartingLora, adapter: LoraAdapter) -> None:
    """Give the adapters the LoRA's factors; raises `ModelError` with what `adapter` would have to be for them to fit.

    A network that the LoRA has no layer of begins as nothing.
    """
    factors: dict[str, tuple[Tensor, Tensor]] = {}
    for number, (component, part) in enumerate(parts_of(actors.denoiser).items()):
        layers = start.placed.get(component, {}) if component else next(iter(start.placed.values()))
        if layers:
            wanted = _wanted_of_encoders(adapter) if number else _Wanted("adapter", adapter.rank, adapter.alpha)
            _refuse_other_adapter(start, layers, wanted, lora_layers(part))
        prefix = f"{component}." if component else ""
        factors |= {prefix + module: (layer.down, layer.up) for module, layer in layers.items()}
    actors.begin_with(factors, is_initial=start.spec.initial == "lora")


# --- the file ------------------------------------------------------------------------------------------------------


def lora_file_of(source: LoraSource) -> Path:
    """Where the file is on this machine, once it is; raises `ModelError` where it is not."""
    match source:
        case LocalLora(path=path):
            return _file_in(Path(path))
        case HubLora():
            return _download(source)
        case StoredLora(id=found) | CheckpointSource(id=found):
            raise ModelError(
                "start_not_resolved", f"start.lora {found!r}: the run was not told where its service has this"
            )
        case _:
            assert_never(source)


def _file_in(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in FILES_OF_A_FOLDER:
        if (path / name).is_file():
            return path / name
    raise ModelError("lora_not_found", f"{path}: expected {' or '.join(FILES_OF_A_FOLDER)} in this folder")


def _download(source: HubLora) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        path = Path(hf_hub_download(source.repo_id, source.file, revision=source.revision))
        if not read_lora(path).says_alpha:
            _download_config(source)
        return path
    except download_errors() as error:
        what = f"the LoRA {source.repo_id}/{source.file}@{source.revision[:12]}"
        raise hub_error(ModelError, what, "lora_not_found", error) from error


def _download_config(source: HubLora) -> None:
    """What says the alpha of a file of PEFT's, to the place beside it; a repository may lack it, and then `start.alpha` says it.

    A Hub that does not answer ends the run: what the alpha is must not hang on what this machine happens to have.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    beside = PurePosixPath(source.file).with_name(PEFT_CONFIG)
    with contextlib.suppress(RemoteEntryNotFoundError):
        hf_hub_download(source.repo_id, beside.as_posix(), revision=source.revision)


# --- the adapter that goes on --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Wanted:
    """The adapter of a network as the spec has it, in its field."""

    field: str
    rank: int | None
    alpha: float | None


def _wanted_of_encoders(adapter: LoraAdapter) -> _Wanted:
    text = adapter.text_encoder
    assert text is not None, "their networks are trained"
    return _Wanted("adapter.text_encoder", text.rank, text.alpha)


def _refuse_other_components(start: StartingLora, *, trained: Set[str]) -> None:
    if others := sorted(start.placed.keys() - trained):
        raise ModelError(
            "start_unfit",
            f"{start.file.path.name}: it changes {others[0]} too, and start.mode train goes on with layers of the "
            f"{' and the '.join(sorted(trained))} alone: use merge, or adapter.text_encoder to train those of text encoders too",
        )


def _refuse_other_adapter(start: StartingLora, layers: LoraLayers, wanted: _Wanted, adapted: Iterable[str]) -> None:
    """The spec says what is trained, so it has to say what the file has."""
    name, field, modules = start.file.path.name, wanted.field, set(adapted)
    for module, layer in layers.items():
        if module not in modules:
            raise ModelError(
                "start_unfit",
                f"{name}: {field}.target_modules leaves out {module!r}, which the LoRA has; its layers end in "
                f"{', '.join(sorted(_endings(layers)))}",
            )
        rank, alpha = len(layer.down), layer.alpha
        if rank != wanted.rank:
            raise ModelError(
                "start_unfit", f"{name}: {module!r} has the rank {rank}, and {field}.rank is {wanted.rank}"
            )
        if alpha != wanted.alpha:
            raise ModelError(
                "start_unfit", f"{name}: {module!r} has the alpha {alpha:g}, and {field}.alpha is {wanted.alpha}"
            )
    if missing := sorted(modules - layers.keys()):
        raise ModelError(
            "start_unfit", f"{name}: {field}.target_modules takes in {missing[0]!r}, which the LoRA does not have"
        )


def _endings(layers: LoraLayers) -> set[str]:
    """The last parts of the names, with the number of a list before it: `to_q`, `to_out.0`."""
    split = [module.rpartition(".") for module in layers]
    return {f"{head.rpartition('.')[2]}.{last}" if last.isdecimal() else last for head, _, last in split}
