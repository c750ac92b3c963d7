"""How long a run takes, by phase and in all, between bounds: its work over the rates of the card that it runs on."""

from collections.abc import Mapping
from typing import get_args

from pydantic import BaseModel, ConfigDict, Field

from alignment_core.costs.compiling import pays, saved_seconds
from alignment_core.costs.rates import Rate, Source
from alignment_core.costs.work import TimedPhase, Work


class Seconds(BaseModel):
    """Of one phase, or of the whole run."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    low: float
    expected: float
    high: float


class Duration(BaseModel):
    """What it takes from a worker's claim on, the queue not counted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    card: str | None = Field(description="The card that is assumed; null where no worker has said which it has.")
    source: Source = Field(
        description="Where the rate of training comes from: `jobs` that ended on such a card, the `card` as it was measured for "
        "Attune's documentation, or a `guess` whose bounds hold most machines."
    )
    phases: dict[TimedPhase, Seconds]
    total: Seconds


def duration_of(work: Work, rates: Mapping[str, Rate], card: str | None) -> Duration:
    """Phases in which nothing is done are left out."""
    timed = {phase: _seconds(work, phase, rates[phase]) for phase in get_args(TimedPhase) if work.of(phase) > 0}
    if "compiling" in timed:
        timed = _weighed(timed, anyhow=work.compiles_anyhow)
    bounds = [sum(getattr(one, bound) for one in timed.values()) for bound in ("low", "expected", "high")]
    return Duration(card=card, source=rates["training"].source, phases=timed, total=_rounded(*bounds))


def _weighed(timed: Mapping[TimedPhase, Seconds], *, anyhow: bool) -> dict[TimedPhase, Seconds]:
    """With what compiling takes and saves, or without it where it does not pay."""
    training = timed["training"]
    if not anyhow and not pays(timed["compiling"].expected, training.expected):
        return {phase: seconds for phase, seconds in timed.items() if phase != "compiling"}
    low, expected = (one - saved_seconds(one) for one in (training.low, training.expected))
    return {**timed, "training": _rounded(low, expected, training.high)}


def _seconds(work: Work, phase: TimedPhase, rate: Rate) -> Seconds:
    done, launches = work.of(phase), work.training_launches if phase == "training" else 0.0
    rates = (rate.high, rate.expected, rate.low)
    return _rounded(*(max(done / one, launches * each) for one, each in zip(rates, rate.launch_seconds, strict=True)))


def _rounded(low: float, expected: float, high: float) -> Seconds:
    return Seconds(low=_digits(low), expected=_digits(expected), high=_digits(high))


def _digits(value: float) -> float:
    """Three are more than is known."""
    return float(f"{value:.3g}")
