"""Whether an uploaded LoRA's layers are a model's, as far as the names in its file say it; kohya's original names are left to the run."""

import math
from collections.abc import Iterator

from alignment_core.model_files import ModelReport
from alignment_core.reports import LoraReport
from alignment_core.spec.families import FAMILIES

MOST_NAMED = 3


def unfit_layers(report: LoraReport, model: ModelReport) -> str | None:
    """Which layers the model does not have, or has in another size; None where it has all of them, or nobody has read its layers."""
    found = [
        why
        for name, (module, width) in of_denoiser(report, model).items()
        if (why := _unfit(name, module, width, model))
    ]
    if not found:
        return None
    more = f"; and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return "; ".join(found[:MOST_NAMED]) + more


def of_denoiser(report: LoraReport, model: ModelReport) -> dict[str, tuple[str, tuple[int, int]]]:
    """Module and width of each layer that is the denoiser's, by its name in the file, as far as the name alone says it."""
    return dict(_of_denoiser(report, model)) if model.layers else {}


def _unfit(name: str, module: str, width: tuple[int, int], model: ModelReport) -> str | None:
    layers = model.layers or {}
    if module not in layers:
        return f"{name!r} is no layer of the model; expected names such as {min(layers)!r}"
    expected_out, *expected_in = layers[module]
    expected = math.prod(expected_in), expected_out
    if expected == width:
        return None
    return (
        f"{name!r} has {width[0]} inputs and {width[1]} outputs, and the model's layer {expected[0]} and {expected[1]}"
    )


def _of_denoiser(report: LoraReport, model: ModelReport) -> Iterator[tuple[str, tuple[str, tuple[int, int]]]]:
    denoiser = FAMILIES[model.family].denoiser if model.family is not None else "unet"
    by_kohya = {f"lora_unet_{module.replace('.', '_')}": module for module in model.layers or ()}
    for name, width in report.layers.items():
        if report.format == "kohya":
            if name in by_kohya:
                yield name, (by_kohya[name], width)
        elif not name.startswith("text_encoder"):
            yield name, (name.removeprefix(f"{denoiser}."), width)
