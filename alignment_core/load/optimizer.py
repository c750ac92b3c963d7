"""The optimiser of a run: torch's AdamW and Adafactor, or bitsandbytes' AdamW whose state has 8 bits.

Weights and gradients are float32 for all of them; they differ in the state that they keep beside each weight: 8, 2 and about 0 bytes.
"""

from collections.abc import Callable
from typing import Any, assert_never, cast

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch.optim import Optimizer

from alignment_core.actors.actors import Actors
from alignment_core.costs.memory import STEPPED_AT_ONCE
from alignment_core.errors import AlignmentError
from alignment_core.lean_imports import let_in
from alignment_core.load.resolved import known
from alignment_core.spec import JobSpec, LoraAdapter
from alignment_core.spec.training import TrainingSpec
from alignment_core.training.loop import RATE_SCALE, learning_rate_schedule

Groups = list[dict[str, Any]]


def build_optimizer(spec: JobSpec, actors: Actors, accelerator: Accelerator) -> AcceleratedOptimizer:
    # The loss scaler skips a step of a fused optimiser inside its kernel, where nobody sees it.
    is_fused = accelerator.device.type == "cuda" and accelerator.scaler is None
    optimizer = new_optimizer(
        spec.training,
        _parameter_groups(spec, actors),
        learning_rate=known(spec.training.learning_rate),
        is_fused=is_fused,
    )
    return cast(AcceleratedOptimizer, accelerator.prepare_optimizer(optimizer))


def learning_rate_at(training: TrainingSpec) -> Callable[[int], float]:
    """The learning rate of each optimiser step, by its index."""
    return learning_rate_schedule(
        training.schedule,
        known(training.learning_rate),
        warmup_steps=known(training.warmup_steps),
        total_steps=training.steps,
    )


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


def _parameter_groups(spec: JobSpec, actors: Actors) -> Groups:
    """One group, or a second one of text encoders whose learning rate is another; the loop scales each group's rate."""
    text = spec.adapter.text_encoder if isinstance(spec.adapter, LoraAdapter) else None
    if text is None or text.learning_rate is None:
        return [{"params": list(actors.trainable().values())}]
    denoiser, encoders = actors.trainable_parts()
    scale = text.learning_rate / known(spec.training.learning_rate)
    return [{"params": list(denoiser.values())}, {"params": list(encoders.values()), RATE_SCALE: scale}]


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
