"""Five linear layers without activations between them are one affine map: the heads of ImageReward and of LAION's aesthetic predictor."""

from collections.abc import Mapping

import torch
from torch import Tensor

WIDTHS = (1024, 128, 64, 16, 1)  # of the published heads, after the embedding's 768
LAYERS = (0, 2, 4, 6, 7)  # their numbers in the published files; dropout has the others


def collapse(layers: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Weight [1, width] and bias [1], float32, of `layers.N.weight` and `layers.N.bias` applied in the order of N.

    Multiplied out in float64. Raises ValueError naming a tensor that is missing, unknown or of another shape than its
    neighbours ask for.
    """
    names = [f"layers.{index}" for index in LAYERS]
    expected = {f"{name}.{part}" for name in names for part in ("weight", "bias")}
    if missing := sorted(expected - set(layers)):
        raise ValueError(f"lacks {missing[0]}")
    if unknown := sorted(set(layers) - expected):
        raise ValueError(f"holds {unknown[0]}, which the head does not have")
    width = layers[f"{names[0]}.weight"].shape[-1]
    weight, bias = torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64)
    for name, outputs in zip(names, WIDTHS, strict=True):
        w, b = layers[f"{name}.weight"].double(), layers[f"{name}.bias"].double()
        if w.shape != (outputs, len(bias)) or b.shape != (outputs,):
            raise ValueError(
                f"{name} is {list(w.shape)} and {list(b.shape)}, expected {[outputs, len(bias)]} and {[outputs]}"
            )
        weight, bias = w @ weight, w @ bias + b
    return weight.float(), bias.float()
