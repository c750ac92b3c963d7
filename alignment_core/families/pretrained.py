"""One part of a folder as a module, whole: every weight that a config asks for is there, and none besides."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from diffusers.models.normalization import RMSNorm
from safetensors import SafetensorError, safe_open
from torch import nn

from alignment_core.actors.working_copies import products
from alignment_core.errors import ModelError
from alignment_core.families.sd_configs import check_vocabulary
from alignment_core.families.source import ModelFolder, read_json
from alignment_core.model_files import shapes_in
from alignment_core.quiet import only_errors

# The other half of CLIP, which some folders keep beside the text encoder.
REST_OF_CLIP = ("vision_model.", "visual_projection.", "text_projection.", "logit_scale")


def load_denoiser(folder: ModelFolder, part: str, model_class: Any, dtype: torch.dtype) -> Any:
    """A denoiser whose products compute in `dtype`; what autocast adds or norms in float32 stays as its file has it.

    But for norms of queries and keys, whose kernels want the precision of their input.
    """
    model = load_part(folder, part, model_class, dtype)
    if dtype != torch.float32:
        _widen(model, folder.weight_files(part))
    return model


@torch.no_grad()
def _widen(model: nn.Module, files: Iterable[Path]) -> None:
    roots = [module for module in model.modules() if isinstance(module, nn.RMSNorm | RMSNorm)]
    halves = {id(weight) for layer in (*products(model), *roots) for weight in layer.parameters(recurse=False)}
    named = [*model.named_parameters(), *model.named_buffers()]
    others = {name: one for name, one in named if id(one) not in halves and one.is_floating_point()}
    for one in others.values():
        one.data = one.data.float()
    for file in files:
        with safe_open(file, framework="pt") as stored:
            for name in others.keys() & set(stored.keys()):  # old files have other names for some: those stay rounded
                others[name].copy_(stored.get_tensor(name))


@contextmanager
def reading(folder: ModelFolder) -> Iterator[None]:
    """What the libraries raise inside is a `ModelError`; what they warn of is checked here."""
    try:
        with only_errors():
            yield
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise ModelError("model_invalid", f"{folder.path}: could not be loaded: {error}") from error


def load_encoder(folder: ModelFolder, part: str, model_class: Any, dtype: torch.dtype) -> Any:
    """A model of transformers, whose weights of another shape are told with their key."""
    return load_part(folder, part, model_class, dtype, ignore_mismatched_sizes=True)


def load_part(folder: ModelFolder, part: str, model_class: Any, dtype: torch.dtype, **options: bool) -> Any:
    """Both libraries leave missing weights empty or random and only warn, so they are asked what was missing."""
    of_a_variant = any("." in file.stem for file in folder.weight_files(part))
    model, loading = model_class.from_pretrained(
        folder.path / part,
        variant=folder.variant if of_a_variant else None,
        use_safetensors=True,
        local_files_only=True,
        dtype=dtype,
        output_loading_info=True,
        **options,
    )
    refuse_partial(folder.path / part, loading)
    return model


def check_weights(folder: ModelFolder, part: str, model_class: Any) -> None:
    """Raise the same `ModelError` by the headers alone, for a part of diffusers.

    Old files have names that diffusers translates while it loads: where any is unknown here, nothing is said of what is missing.
    """
    with reading(folder), torch.device("meta"):
        described = model_class.from_config(read_json(folder.path / part / "config.json")).state_dict()
    expected = {name: list(weight.shape) for name, weight in described.items()}
    found: dict[str, list[int]] = {}
    for file in folder.weight_files(part):
        found |= shapes_in(file)
    unknown = found.keys() - expected.keys()
    refuse_partial(
        folder.path / part,
        {
            "missing_keys": [] if unknown else expected.keys() - found.keys(),
            "mismatched_keys": [
                (name, shape, expected[name]) for name, shape in found.items() if shape != expected.get(name, shape)
            ],
            "unexpected_keys": [],
        },
    )


def refuse_partial(path: Path, loading: dict[str, Any]) -> None:
    """Raise `ModelError` with the weight that a part lacks, or has too many, by what a library says that it loaded."""
    config = f"the model that {path / 'config.json'} describes"
    if missing := sorted(loading["missing_keys"]):
        raise ModelError("model_invalid", f"{path}: {_named(missing)} of {config} is missing")
    for name, found, expected in sorted(loading["mismatched_keys"]):
        shapes = f"has the shape {list(found)}, and in {config} it has {list(expected)}"
        raise ModelError("model_invalid", f"{path}: the weight {name!r} {shapes}")
    if unexpected := sorted(key for key in loading["unexpected_keys"] if not key.startswith(REST_OF_CLIP)):
        raise ModelError("model_invalid", f"{path}: {_named(unexpected)} is not part of {config}")


def load_tokenizer(folder: ModelFolder, part: str, kind: Any) -> Any:
    """A tokenizer of transformers."""
    return kind.from_pretrained(folder.path / part, local_files_only=True)


def check_vocabularies(folder: ModelFolder, pipeline: DiffusionPipeline, parts: Sequence[str]) -> None:
    """Raise `ModelError` where a tokenizer of the pipeline knows tokens that its text encoder has no embedding for."""
    for part in parts:
        encoder, tokenizer = getattr(pipeline, part), getattr(pipeline, part.replace("text_encoder", "tokenizer"))
        if encoder is not None:
            check_vocabulary(folder, tokenizer.get_vocab(), encoder.config.vocab_size, part)


def in_wide_half(dtype: torch.dtype) -> torch.dtype:
    """The half precision of T5, whose activations overflow in float16."""
    return torch.bfloat16 if dtype is torch.float16 else dtype


def fresh_scheduler(scheduler: FlowMatchEulerDiscreteScheduler) -> FlowMatchEulerDiscreteScheduler:
    """The same levels in a scheduler that has not stepped yet."""
    return FlowMatchEulerDiscreteScheduler.from_config(scheduler.config)  # pyright: ignore[reportReturnType]


def _named(keys: Collection[str]) -> str:
    first, *others = keys
    return f"the weight {first!r}" + (f" (and {len(others)} more)" if others else "")
