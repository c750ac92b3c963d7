"""How fast a machine works, by phase: measured by jobs that ended, on a card of that name before, or bounded as well as can be."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from alignment_core.costs.work import TimedPhase

Source = Literal["jobs", "card", "guess"]


@dataclass(frozen=True)
class Rate:
    """In the unit of the phase's work, a second. `launch_seconds`: of one forward or backward, below which no small batch gets."""

    low: float
    expected: float
    high: float
    source: Source
    launch_seconds: tuple[float, float, float] = (0.0, 0.0, 0.0)


Rates = Mapping[TimedPhase, Rate]


def _rates(source: Source, **phases: tuple[float, float, float]) -> dict[str, Rate]:
    return {phase: Rate(*values, source) for phase, values in phases.items()}


# An H100 80GB with SD 1.5 at 512 pixels, torch 2.11: LoRA 105 to 179 TFLOP/s from micro-batch 4 to 32, full 120 to 195, and 0.30 s
# for three passes of any smaller one; the report 143; 75 of 99 images a second cached and 46 decoded; 11.1 GB saved in 26 s;
# some 40 graphs compiled in 142 s.
_OTHER = {
    "caching": (2e5, 3.1e5, 4.1e5),
    "scoring": (1.0e5, 1.9e5, 2.7e5),
    "saving": (2e8, 4.3e8, 2e9),
    "loading": (1 / 90, 1 / 30, 0.1),
    "compiling": (1 / 8, 1 / 3.5, 1.0),
}
H100_HALF = {
    **_rates("card", sampling=(60, 140, 220), evaluating=(60, 140, 220), **_OTHER),
    "training": Rate(100, 165, 260, "card", (0.03, 0.1, 0.12)),
}
H100_FLOAT32 = _rates("card", training=(30, 40, 51), sampling=(25, 40, 51), evaluating=(25, 40, 51), **_OTHER)

_ANY_DISK = {"saving": (5e7, 4e8, 4e9), "loading": (1 / 180, 1 / 30, 0.3)}
ANY_GPU = _rates(
    "guess", training=(3, 40, 300), sampling=(3, 40, 300), evaluating=(3, 40, 300),
    caching=(1e4, 1.5e5, 6e5), scoring=(5e3, 8e4, 4e5), compiling=(1 / 16, 1 / 4, 1.0), **_ANY_DISK,
)  # fmt: skip
ANY_CPU = {
    **_rates(
        "guess", sampling=(0.003, 0.03, 2), evaluating=(0.003, 0.03, 2), caching=(2e2, 4e3, 1e5), scoring=(1e2, 2e3, 5e4),
        compiling=(1 / 40, 1 / 10, 1.0), **_ANY_DISK,
    ),
    "training": Rate(0.003, 0.03, 2, "guess", (0.005, 0.02, 0.1)),  # the interpreter's share of a forward of the demo's U-Net
}  # fmt: skip


# Where no job has shown a phase: those whose work is most like it, the nearest first. A run that draws nothing in its training still
# draws for its report, and what a VAE encodes says how fast it decodes.
ALIKE: Mapping[str, tuple[str, ...]] = {
    "training": ("evaluating", "sampling"),
    "sampling": ("evaluating", "training"),
    "evaluating": ("sampling", "training"),
    "scoring": ("caching",),
    "caching": ("scoring",),
}
ALIKE_WITHIN = 4.0  # times slower or faster than the other phase says


def corrected(assumed: Mapping[str, Rate], measured: Mapping[str, Rate]) -> dict[str, Rate]:
    """What is assumed of a card, but for what jobs have shown; how long one small forward takes, no job's rate tells.

    A mere guess is moved with what was shown of a phase like it: two orders of magnitude lie between machines, and little between
    what one of them does in two phases.
    """
    shown = {phase: replace(rate, launch_seconds=assumed[phase].launch_seconds) for phase, rate in measured.items()}
    moved = {
        phase: _moved(rate, shown[alike].expected / assumed[alike].expected)
        for phase, rate in assumed.items()
        if rate.source == "guess" and (alike := next(filter(shown.__contains__, ALIKE.get(phase, ())), None))
    }
    return {**assumed, **moved, **shown}


def _moved(rate: Rate, factor: float) -> Rate:
    expected = rate.expected * factor
    return replace(rate, low=expected / ALIKE_WITHIN, expected=expected, high=expected * ALIKE_WITHIN)


def rates_of_card(name: str | None, *, is_gpu: bool, is_half: bool) -> Mapping[str, Rate]:
    """What is assumed of a card that no job has been measured on."""
    if not is_gpu:
        return MappingProxyType(ANY_CPU)
    if name is not None and "H100" in name:
        return MappingProxyType(H100_HALF if is_half else H100_FLOAT32)
    return MappingProxyType(ANY_GPU)
