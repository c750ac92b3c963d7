"""The optimiser of a run: torch's AdamW and Adafactor, or bitsandbytes' AdamW whose state has 8 bits.

Weights and gradients are float32 for all of them; they differ in the state that they keep beside each weight: 8, 2 and about 0 bytes.
"""

from typing import Any, assert_never

import torch
from torch.optim import Optimizer

from alignment_core.costs.memory import STEPPED_AT_ONCE
from alignment_core.errors import AlignmentError
from alignment_core.lean_imports import let_in
from alignment_core.spec.training import TrainingSpec

Groups = list[dict[str, Any]]


def new_optimizer(training: TrainingSpec, groups: Groups, *, learning_rate: float, is_fused: bool) -> Optimizer:
    """`is_fused`: one kernel for all weights, whose sums round in another order; for GPUs.

    Raises `AlignmentError` where the library of the 8-bit optimiser is not installed.
    """
    betas, eps, decay = (training.adam_beta1, training.adam_beta2), training.adam_epsilon, training.weight_decay
    match training.optimizer:
        case "adamw":
            how = {"fused": True} if is_fused else {"foreach": _are_small(groups)}
            return torch.optim.AdamW(groups, lr=learning_rate, betas=betas, eps=eps, weight_decay=decay, **how)
        case "adamw_8bit":
            return _adamw_8bit()(groups, lr=learning_rate, betas=betas, eps=eps, weight_decay=decay)
        case "adafactor":
            return torch.optim.Adafactor(groups, lr=learning_rate, weight_decay=decay)
        case _:
            assert_never(training.optimizer)


def _are_small(groups: Groups) -> bool:
    """Whether all weights are stepped at once, as the hundreds of a LoRA are: the same bits in a third of the time.

    It takes their memory once more, which a whole network's would be too much of.
    """
    return sum(weight.numel() for group in groups for weight in group["params"]) < STEPPED_AT_ONCE


def _adamw_8bit() -> Any:
    let_in("bitsandbytes")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise AlignmentError(
            "optimizer_unavailable",
            "training.optimizer adamw_8bit needs bitsandbytes, which this machine does not have",
            hint="Install attune[optimizers] on the worker, or write another training.optimizer.",
        ) from error
    return AdamW8bit
