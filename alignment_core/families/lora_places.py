"""Which layer of a model each layer of a LoRA file belongs to: the names of every tool, looked up from the model's own.

The names are those that exports write (`FamilyKeys.to_kohya`), so reading undoes writing by construction. Beside them, U-Nets
are known by both names that trainers use for them, diffusers' and the original ones, and text encoders with and without
`text_model.`. Where the original joins layers, so do the files, and each is parted into the model's own.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from alignment_core.errors import ModelError
from alignment_core.families.clip_keys import text_module
from alignment_core.families.keys import FamilyKeys, LoraLayer
from alignment_core.families.lora_file import LoraFile
from alignment_core.families.original_layers import apart
from alignment_core.families.unet_keys import original_unet_module

Components = Mapping[str, nn.Module]
Placed = dict[str, dict[str, LoraLayer]]
"""By component and by the model's own name of the module, in the shapes that the module's weight wants."""

_NOTHING = LoraLayer(torch.empty(0), torch.empty(0), 0.0)


def place(file: LoraFile, components: Components, keys: FamilyKeys) -> Placed:
    """The layers of a file where they belong; the first of `components` is the denoiser.

    Raises `ModelError` with the first name that the model does not have, or whose shapes do not fit.
    """
    places = dict(_places(components, keys))
    placed: Placed = {}
    for name, layer in _apart(file, components, keys).items():
        if name not in places:
            raise ModelError(
                "lora_unfit", f"{file.path.name}: {name!r} is no layer of the model; {_expected(name, places)}"
            )
        component, module = places[name]
        weight = components[component].get_submodule(module).get_parameter("weight")
        placed.setdefault(component, {})[module] = _fitted(layer, weight, f"{file.path.name}: {name!r}")
    return placed


def _apart(file: LoraFile, components: Components, keys: FamilyKeys) -> dict[str, LoraLayer]:
    """The layers of a file, those that the original code joins as the several that the model has."""
    if keys.joined is None:
        return dict(file.layers)
    component, denoiser = next(iter(components.items()))
    rows = {
        module: len(layer.weight)
        for module, layer in denoiser.named_modules()
        if isinstance(layer, nn.Linear | nn.Conv2d)
    }
    config = config_of(denoiser)
    originals = {f"lora_unet_{one.name.replace('.', '_')}": one for one in (keys.joined(name, config) for name in rows)}
    found: dict[str, LoraLayer] = {}
    for name, layer in file.layers.items():
        if (original := originals.get(name)) is None:
            found[name] = layer
            continue
        heights = [rows[part] for part in original.parts]
        if sum(heights) != len(layer.up):
            shapes = f"has an up of {list(layer.up.shape)}, and the model's layer {sum(heights)} rows"
            raise ModelError("lora_unfit", f"{file.path.name}: {name!r} {shapes}")
        for module, part in apart(layer, original, heights).items():
            found[f"{component}.{module}"] = part
    return found


def _places(components: Components, keys: FamilyKeys) -> Iterator[tuple[str, tuple[str, str]]]:
    """(name in some tool, (component, module)) of every layer that a LoRA may change."""
    denoiser = next(iter(components))
    for component, network in components.items():
        config = config_of(network)
        for module, layer in network.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                for name in _names(component, module, config, keys, is_denoiser=component == denoiser):
                    yield name, (component, module)


def _names(
    component: str, module: str, config: Mapping[str, Any], keys: FamilyKeys, *, is_denoiser: bool
) -> Iterator[str]:
    yield f"{component}.{module}"
    if is_denoiser:
        yield module
    else:
        yield f"{component}.{text_module(module)}"
    if keys.joined is None or not is_denoiser:
        yield from keys.to_kohya(component, {module: _NOTHING}, config)
    if component == "unet":
        yield f"lora_unet_{module.replace('.', '_')}"
        if (original := _original(module, config)) is not None:
            yield f"lora_unet_{original.replace('.', '_')}"


def _original(module: str, config: Mapping[str, Any]) -> str | None:
    try:
        return original_unet_module(module, config)
    except ModelError:
        return None  # the original U-Net has no such module, so no file names it so


def config_of(network: nn.Module) -> Mapping[str, Any]:
    """What the `config.json` of a network of diffusers or transformers holds."""
    config: Any = network.config
    return config if isinstance(config, Mapping) else config.to_dict()


def _fitted(layer: LoraLayer, weight: Tensor, name: str) -> LoraLayer:
    """The layer in the shapes of PEFT's: a linear one's matrices, or a convolution's kernels."""
    outputs, *inputs = weight.shape
    rank = len(layer.down)
    kernel = inputs[1:]
    down_shape = (rank, *inputs)
    up_shape = (outputs, rank, *[1] * len(kernel))
    if (
        layer.down.numel() != rank * weight[0].numel()
        or layer.up.numel() != outputs * rank
        or _of_another_kernel(layer, kernel)
    ):
        raise ModelError(
            "lora_unfit",
            f"{name} has a down of {list(layer.down.shape)} and an up of {list(layer.up.shape)}, and the model's layer is of "
            f"{list(weight.shape)}: expected {list(down_shape)} and {list(up_shape)}",
        )
    return LoraLayer(layer.down.reshape(down_shape), layer.up.reshape(up_shape), layer.alpha)


def _of_another_kernel(layer: LoraLayer, kernel: list[int]) -> bool:
    """Whether the file's kernel is not the layer's; a matrix stands for a kernel of one pixel, and the other way round."""
    found = list(layer.down.shape[2:])
    return (found or [1, 1]) != (kernel or [1, 1])


def _expected(name: str, places: Mapping[str, tuple[str, str]]) -> str:
    start = name[:10]
    example = min((known for known in places if known.startswith(start)), default=min(places))
    return f"expected names such as {example!r}"
