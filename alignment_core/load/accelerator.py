"""What a run computes on: device, threads, precision and processes."""

from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from alignment_core.errors import AlignmentError
from alignment_core.ranks import PATIENCE
from alignment_core.spec import JobSpec
from alignment_core.spec.training import Precision


def new_accelerator(spec: JobSpec, precision: Precision | None = None) -> Accelerator:
    """What a run trains on. `precision` is what `auto` came to; until it is known a GPU begins in the half precision that is likely."""
    resources = spec.resources
    wanted = precision or spec.training.precision
    return accelerator_on(
        resources.device, wanted, resources.num_cpu_threads, field="training.precision", accumulation=spec.accumulation
    )


def accelerator_on(
    device: Literal["auto", "cpu", "cuda"],
    wanted: Literal["auto"] | Precision,
    num_cpu_threads: int | None,
    *,
    field: str,
    accumulation: int = 1,
) -> Accelerator:
    """Device, threads, precision, accumulation and processes. Raises `AlignmentError` for a device or precision that is not there.

    `field` is where the spec says the precision.
    """
    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise AlignmentError(
            "no_gpu", "resources.device is cuda, and this machine has no CUDA device", category="capacity"
        )
    if wanted == "fp16" and (device == "cpu" or not has_gpu):
        raise AlignmentError("precision_unsupported", f"{field} fp16 needs a GPU; use fp32 or bf16 on a CPU")
    if wanted == "auto":
        wanted = "fp16" if has_gpu and device != "cpu" else "fp32"
    if num_cpu_threads is not None:
        torch.set_num_threads(num_cpu_threads)
    # What a half-precision run leaves in float32 (the VAE, rewards) loses .02 in the logit to TF32 (docs/precision.md).
    torch.backends.cuda.matmul.fp32_precision = "ieee" if wanted == "fp32" else "tf32"
    # accelerate keeps one state a process, and refuses a second run there that wants another precision.
    AcceleratorState._reset_state()
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    return Accelerator(
        kwargs_handlers=[patience],
        mixed_precision="no" if wanted == "fp32" else wanted,
        gradient_accumulation_steps=accumulation,
        cpu=device == "cpu" or not has_gpu,  # else several processes would have a device without a name of its own
    )
