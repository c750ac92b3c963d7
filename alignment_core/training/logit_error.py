"""How far the first batch's logits are off in half precision, and what is said where that is too far.

While policy and reference are equal their rounding is equal too, and every logit is exactly 0. So the policy is nudged for the
measurement, by a thousandth of its weights, and is bit for bit what it was after it.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from alignment_core.actors.actors import Actors
from alignment_core.events import PrecisionMeasured, WarningRaised
from alignment_core.protocols import Method, Remembering, StepLoss
from alignment_core.ranks import ALONE, Ranks
from alignment_core.seeds import seed_of
from alignment_core.shapes import PerExample
from alignment_core.shares import local, share_of, whole
from alignment_core.spec.training import Precision

MAX_LOGIT_ERROR = 0.2  # sigma(-u), what a pair weighs in the gradient, is then off by up to 0.25 x 0.2 = 5 %
NUDGE = 1e-3
DTYPES: Mapping[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@runtime_checkable
class Clamped(Protocol):
    """A method whose gradient ends where a ratio is so far from 1."""

    @property
    def ratio_clamp(self) -> float | None: ...


@torch.no_grad()
def measure(
    actors: Actors, method: Method[Any], batch: Any, precision: Precision, seed: int, ranks: Ranks = ALONE
) -> tuple[PrecisionMeasured, WarningRaised | None]:
    """The error of this precision's logits, and what would help where it is above what the method can bear.

    Of the batches of all processes together, so that all come to the same.
    """
    if isinstance(method, Remembering):
        method, batch = method.asking_anew(batch)
    with nudged(actors.trainable(), seed):
        exact = _loss_in("fp32", actors, method, batch)

        def error_of(one: Precision) -> float:
            return rms(ranks.joined(logits_of(_loss_in(one, actors, method, batch)) - logits_of(exact)))

        error, limit = error_of(precision), tolerance(method, exact)
        others: dict[Precision, float] = {}
        if not error <= limit:
            other: Precision = "fp16" if precision == "bf16" else "bf16"
            others = {other: error_of(other)}
    logits = ranks.joined(logits_of(exact))
    size = rms(logits)
    measured = PrecisionMeasured(
        precision=precision, logit_error=_number(error), logit_rms=_number(size), num_examples=len(logits)
    )
    return measured, None if error <= limit else _too_coarse(precision, error, size, limit, others)


@contextmanager
def nudged(parameters: Mapping[str, nn.Parameter], seed: int) -> Iterator[None]:
    """Inside, each parameter is off by gaussian noise of a thousandth of its size, or of 1 where it is all zeros.

    Behind autograd's back: a prediction that was kept before may still go back after. Copies in half do not follow (`Actors.computing_in` leaves them out).
    """
    kept = {name: parameter.detach().clone() for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            draws = torch.Generator(parameter.device).manual_seed(seed_of(seed, "nudge", name))
            noise = torch.randn(parameter.shape, generator=draws, device=parameter.device)
            nudge = NUDGE * (rms(whole(parameter.detach())) or 1.0) * noise.to(parameter.dtype)
            local(parameter.data).add_(local(share_of(nudge, parameter)))
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data.copy_(kept[name])


def logits_of(loss: StepLoss) -> PerExample:
    """What stands in the sigmoid before lambda(t), or the log-ratio of methods that have no sigmoid."""
    return loss.metrics["margin"] if "margin" in loss.metrics else loss.metrics["ratio"].log()


def tolerance(method: Method[Any], loss: StepLoss) -> float:
    """The error that does no harm: a ratio that is clamped must not be off by more than its clamp."""
    if "margin" in loss.metrics or not isinstance(method, Clamped) or method.ratio_clamp is None:
        return MAX_LOGIT_ERROR
    return method.ratio_clamp


def rms(values: Tensor) -> float:
    """Root mean square."""
    return float(values.float().square().mean().sqrt())


def _loss_in(precision: Precision, actors: Actors, method: Method[Any], batch: Any) -> StepLoss:
    with actors.computing_in(DTYPES[precision]):
        return method.loss(actors, batch)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _too_coarse(
    precision: Precision, error: float, size: float, limit: float, others: Mapping[Precision, float]
) -> WarningRaised:
    better = [f"{other} errs by {value:.2g}" for other, value in others.items() if value < error]
    helps = [*(other for other, value in others.items() if value < error), "fp32"]
    message = (
        f"in {precision} the logits of the first batch err by {error:.2g} (root mean square, above {limit:.2g}; they are "
        f"{size:.2g} themselves): pairs are weighed by rounding as much as by preference. {'; '.join(better)}"
        f"{'; ' if better else ''}set training.precision to {' or '.join(helps)}, or lower method.beta"
    )
    return WarningRaised(code="precision_too_coarse", message=message)
