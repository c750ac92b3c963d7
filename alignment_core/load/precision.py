"""Which precision `auto` means on a machine: float32 on a CPU, on a GPU the half precision that rounds the model least.

float16 has three bits more of mantissa than bfloat16 and is some eight times as exact at the same speed, where the model stays within its
range; that is measured, not believed.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, assert_never

import torch
from jaxtyping import Float
from torch import Tensor

from alignment_core import checkpoints
from alignment_core.actors.arithmetic import autocast_to, half_layers_in, strict_float32
from alignment_core.families.family import Family
from alignment_core.seeds import generator_of
from alignment_core.spec.training import Precision

Half = Literal["bf16", "fp16"]
HALVES: tuple[Half, ...] = ("fp16", "bf16")
DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
NUM_DRAWS = 4


def settled(asked: Literal["auto"] | Precision, device: str, resumed: Path | None) -> Precision | None:
    """The precision of a run as far as it is known before the model is loaded; None where it is to be measured.

    A run that goes on keeps the half precision that it began with; one that comes to a GPU from a CPU is measured.
    """
    if asked != "auto":
        return asked
    if device == "cpu":
        return "fp32"
    return None if resumed is None else half_of(checkpoints.load_state(resumed).precision)


def half_of(precision: Precision | None) -> Half | None:
    """The precision, if it is a half one."""
    match precision:
        case "bf16" | "fp16":
            return precision
        case "fp32" | None:
            return None
        case _:
            assert_never(precision)


def most_exact(errors: Mapping[Half, float]) -> Half:
    """The half precision with the least error; bf16, whose range is float32's, where neither gives numbers."""
    finite: dict[Half, float] = {half: error for half, error in errors.items() if math.isfinite(error)}
    return min(finite, key=finite.__getitem__) if finite else "bf16"


@torch.no_grad()
def prediction_errors(family: Family) -> dict[Half, float]:
    """|y_half - y_float32| / |y_float32| of the model's predictions at a few noise levels, without a prompt."""
    shape, device = family.latent_shape(family.resolution), family.device
    draws = generator_of(0, "precision")
    x_0, eps = (torch.randn((NUM_DRAWS, *shape), generator=draws).to(device) for _ in range(2))
    t = (torch.arange(NUM_DRAWS) * 2 + 1) * family.path.num_timesteps // (2 * NUM_DRAWS)
    t = t.to(device)
    conditioning = family.sampling_conditioning([""] * NUM_DRAWS)

    def predicted(precision: Precision) -> Tensor:
        dtype, x_t = DTYPES[precision], family.path.noisy(x_0, eps, t)
        with half_layers_in(dtype, family.denoiser), strict_float32(), autocast_to(dtype, device):
            return family.predict(family.denoiser, x_t, family.path.time(t), conditioning).float()

    exact = predicted("fp32")
    return {half: _relative_error(predicted(half), exact) for half in HALVES}


def _relative_error(y: Float[Tensor, "..."], exact: Float[Tensor, "..."]) -> float:
    error = float((y - exact).square().mean().sqrt() / exact.square().mean().sqrt())
    return error if math.isfinite(error) else math.inf
