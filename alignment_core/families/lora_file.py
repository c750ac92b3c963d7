"""A LoRA that others saved: its layers under the names that its file has for them.

    PEFT        base_model.model.<module>.lora_A.weight, .lora_B.weight                  alpha in adapter_config.json beside it
    diffusers   <component>.<module>.lora_A.weight, .lora_B.weight                       alpha in the header, or none: the rank
                <component>.<module>.lora.down.weight, .lora.up.weight, and older ones   <component>.<module>.alpha, or none
    kohya       lora_unet_<module, dots as underscores>.lora_down.weight, .lora_up.weight, .alpha

https://github.com/huggingface/diffusers/blob/main/src/diffusers/loaders/lora_base.py and
https://github.com/kohya-ss/sd-scripts/blob/main/networks/lora.py have the names.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor

from alignment_core.errors import ModelError
from alignment_core.families.keys import LoraLayer
from alignment_core.reports import LoraReport

LoraFormat = Literal["peft", "diffusers", "kohya"]

DIFFUSERS_HEADER = "lora_adapter_metadata"
PEFT_CONFIG = "adapter_config.json"
PEFT_PREFIX = "base_model.model."
KOHYA_PREFIX = "lora_"
OF_TEXT_ENCODERS = ("text_encoder", "lora_te")
ALPHA = ".alpha"
_DOWN = (
    *(".lora_A.weight", ".lora_A.default.weight", ".lora_down.weight", ".lora.down.weight"),
    *(".lora_linear_layer.down.weight", "_lora.down.weight"),
)
_UP = (
    *(".lora_B.weight", ".lora_B.default.weight", ".lora_up.weight", ".lora.up.weight"),
    *(".lora_linear_layer.up.weight", "_lora.up.weight"),
)
# Endings of what is no plain LoRA, and what it is.
_OTHER_KINDS = {
    ".dora_scale": "DoRA",
    ".lora_magnitude_vector": "DoRA",
    ".lora_magnitude_vector.weight": "DoRA",
    ".lora_mid.weight": "LoCon with a Tucker core",
    ".hada_w1_a": "LoHa",
    ".lokr_w1": "LoKr",
    ".lokr_w1_a": "LoKr",
    ".diff": "a full difference of weights",
    ".diff_b": "a full difference of weights",
}


@dataclass(frozen=True)
class LoraFile:
    """What a file holds; `layers` by the name that the file has for the module, its component included."""

    path: Path
    format: LoraFormat
    sha256: str
    layers: Mapping[str, LoraLayer]
    says_alpha: bool = True
    """False where the alphas of `layers` are a guess: PEFT's own files leave it to a config, which is not there."""


def read_lora(path: Path, default_alpha: float | None = None) -> LoraFile:
    """Read a safetensors file; raises `ModelError` with the key that is not understood, and what was expected.

    `default_alpha` is that of layers of which the file does not say it; their rank, so a scale of 1, where it is None.
    """
    tensors, header = _read(path)
    downs, ups, alphas = _sorted_out(tensors, path)
    if not downs:
        raise ModelError("lora_invalid", f"{path.name}: it holds no layer of a LoRA")
    if unpaired := sorted(downs.keys() ^ ups.keys()):
        missing = "down (A)" if unpaired[0] in ups else "up (B)"
        raise ModelError("lora_invalid", f"{path.name}: {unpaired[0]!r} has no {missing}")
    if alone := sorted(alphas.keys() - downs.keys()):
        raise ModelError("lora_invalid", f"{path.name}: {alone[0] + ALPHA!r} belongs to no layer")
    configs = _configs(path, header)
    layers = {
        name: _layer(name, down, ups[name], alphas.get(name), configs, default_alpha, path)
        for name, down in downs.items()
    }
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    format = _format_of(tensors)
    said = {
        name for name, down in downs.items() if _configured_alpha(name, len(down), configs) is not None
    } | alphas.keys()
    says_alpha = format != "peft" or default_alpha is not None or said == downs.keys()
    return LoraFile(path, format, digest, layers, says_alpha)


def report_of(file: LoraFile) -> LoraReport:
    """What the file holds, for people and for checks before a run."""
    return LoraReport(
        format=file.format,
        num_layers=len(file.layers),
        ranks=sorted({len(layer.down) for layer in file.layers.values()}),
        alphas=sorted({layer.alpha for layer in file.layers.values()}),
        changes_text_encoder=any(name.startswith(OF_TEXT_ENCODERS) for name in file.layers),
        says_alpha=file.says_alpha,
        layers={name: (layer.down[0].numel(), len(layer.up)) for name, layer in file.layers.items()},
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118  no mapping
    except FileNotFoundError as error:
        raise ModelError("lora_not_found", f"{path}: there is no such file") from error
    except (OSError, SafetensorError) as error:
        raise ModelError("lora_invalid", f"{path.name}: no safetensors file; pickled weights are not read") from error


def _sorted_out(
    tensors: Mapping[str, Tensor], path: Path
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, float]]:
    """Downs, ups and alphas by the name of their module."""
    downs: dict[str, Tensor] = {}
    ups: dict[str, Tensor] = {}
    alphas: dict[str, float] = {}
    for key, value in tensors.items():
        if (name := _module_of(key, _DOWN)) is not None:
            downs[name] = value
        elif (name := _module_of(key, _UP)) is not None:
            ups[name] = value
        elif key.endswith(ALPHA) and value.numel() == 1 and not value.is_complex():
            alphas[_as_in_peft(key.removesuffix(ALPHA))] = float(value)
        else:
            kind = next((kind for ending, kind in _OTHER_KINDS.items() if key.endswith(ending)), None)
            reason = f"it is of {kind}, which is not read" if kind else "it is no part of a LoRA"
            raise ModelError(
                "lora_invalid",
                f"{path.name}: unknown key {key!r}: {reason}; expected pairs of lora_A and lora_B, or of lora_down and lora_up",
            )
    return downs, ups, alphas


def _module_of(key: str, endings: tuple[str, ...]) -> str | None:
    for ending in endings:
        if key.endswith(ending):
            return _as_in_peft(key.removesuffix(ending))
    return None


def _as_in_peft(name: str) -> str:
    """The module's name without what only old files of diffusers put there: `attn1.processor.to_out_lora` is `attn1.to_out.0`."""
    name = name.removeprefix(PEFT_PREFIX).removesuffix("_lora").replace(".processor.", ".")
    if ".self_attn.to_" in name:  # of a text encoder
        head, _, projection = name.rpartition(".to_")
        return f"{head}.{projection}_proj"
    return f"{name}.0" if name.endswith(".to_out") else name


def _layer(
    name: str,
    down: Tensor,
    up: Tensor,
    alpha: float | None,
    configs: Mapping[str, Any],
    default_alpha: float | None,
    path: Path,
) -> LoraLayer:
    rank = len(down) if down.ndim else 0
    if down.ndim not in (2, 4) or up.ndim not in (2, 4) or up.shape[1] != rank or rank == 0:
        raise ModelError(
            "lora_invalid",
            f"{path.name}: {name!r} has a down of {list(down.shape)} and an up of {list(up.shape)}; expected [rank, in] and "
            "[out, rank], or those of a convolution",
        )
    if alpha is None:
        alpha = _configured_alpha(name, rank, configs)
    if alpha is None:
        alpha = default_alpha
    if alpha is not None and not math.isfinite(alpha):
        raise ModelError("lora_invalid", f"{path.name}: the alpha of {name!r} is {alpha}; expected a finite number")
    for factor in (down, up):
        _check_numbers(name, factor, path)
    return LoraLayer(down, up, float(rank if alpha is None else alpha))


def _check_numbers(name: str, factor: Tensor, path: Path) -> None:
    if not factor.is_floating_point():
        raise ModelError("lora_invalid", f"{path.name}: {name!r} is of {factor.dtype}; expected floating point")
    if not factor.float().isfinite().all():
        raise ModelError("lora_invalid", f"{path.name}: {name!r} holds nan or inf; expected finite weights")


def _configs(path: Path, header: Mapping[str, str]) -> dict[str, Any]:
    """What diffusers writes into the header, by `<component>.<field>`; or PEFT's config beside the file, without a component."""
    beside = path.parent / PEFT_CONFIG
    try:
        found = json.loads(header.get(DIFFUSERS_HEADER, "{}"))
        if not found and beside.is_file():
            found = json.loads(beside.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelError("lora_invalid", f"{path.name}: its {DIFFUSERS_HEADER} is no JSON: {error}") from error
    return found if isinstance(found, dict) else {}


def _configured_alpha(name: str, rank: int, configs: Mapping[str, Any]) -> float | None:
    component, _, module = name.partition(".")
    inside = {
        key.removeprefix(f"{component}."): value for key, value in configs.items() if key.startswith(f"{component}.")
    }
    config = inside or configs
    patterns = config.get("alpha_pattern")
    patterns = patterns if isinstance(patterns, dict) else {}
    alpha = next(
        (value for pattern, value in patterns.items() if pattern in (name, module) or name.endswith(f".{pattern}")),
        config.get("lora_alpha"),
    )
    if not isinstance(alpha, int | float):
        return None
    return float(alpha) * (rank**0.5 if config.get("use_rslora") else 1.0)


def _format_of(tensors: Mapping[str, Tensor]) -> LoraFormat:
    first = min(tensors)
    if first.startswith(KOHYA_PREFIX):
        return "kohya"
    return "peft" if first.startswith(PEFT_PREFIX) else "diffusers"
