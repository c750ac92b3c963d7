"""Plots as geometry: what the page's template draws as SVG. Nothing here knows of HTML.

Charts with lines live in a box of 360 x 200 units; what spans the page is in percent of its width, so that text keeps its
size on a phone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from alignment_core.reports import Curve, RewardComparison

WIDTH, HEIGHT = 360, 200
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 26
MOST_BARS = 160
WINDOW_SHARE = 20  # a running mean is over a twentieth of the curve


@dataclass(frozen=True)
class Tick:
    """A place on an axis, in the unit of its plot, with its label."""

    place: float
    label: str


def round_ticks(low: float, high: float, most: int) -> list[float]:
    """At most `most` multiples of 1, 2 or 5 times a power of ten within [low, high]; one of them at least."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(unit * power for unit in (1, 2, 5, 10, 20) if span / (unit * power) <= most - 1)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)] or [low]


def tick_labels(values: Sequence[float]) -> list[str]:
    """The values with just the decimals that tell them apart; powers of ten where that would be long."""
    step = min((abs(b - a) for a, b in pairwise(values)), default=abs(values[0]) or 1.0)
    largest = max(map(abs, values))
    if largest >= 1e5 or (0 < largest < 1e-3):
        return [
            "0" if abs(value) < step / 2 else f"{value:.3g}".replace("e-0", "e-").replace("e+0", "e")
            for value in values
        ]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{value:.{decimals}f}".replace("-", "\N{MINUS SIGN}") for value in values]


@dataclass(frozen=True)
class Axis:
    """A linear scale from values to places."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 2)

    def ticks(self, most: int) -> list[Tick]:
        values = round_ticks(self.low, self.high, most)
        return [Tick(self.place(value), label) for value, label in zip(values, tick_labels(values), strict=True)]


def spanning(values: Sequence[float], start: float, end: float, margin: float = 0.06) -> Axis:
    """An axis over all the values with a little air; a single value lies in its middle."""
    low, high = min(values), max(values)
    air = (high - low) * margin or abs(low) * 0.1 or 1.0
    return Axis(low - air, high + air, start, end)


# --- curves --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One split of a metric: every point, their running mean where there are many, and the last value."""

    split: str
    points: str
    trend: str | None
    end: tuple[float, float]
    last: float


@dataclass(frozen=True)
class LineChart:
    metric: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    first_step: int
    last_step: int


def line_charts(curves: Sequence[Curve]) -> list[LineChart]:
    """One chart a metric, with its splits in it, in the order in which the metrics first come."""
    metrics = dict.fromkeys(curve.metric for curve in curves if curve.steps)
    return [_line_chart(metric, [one for one in curves if one.metric == metric and one.steps]) for metric in metrics]


def _line_chart(metric: str, curves: Sequence[Curve]) -> LineChart:
    steps = [step for curve in curves for step in curve.steps]
    x = spanning(steps, LEFT, WIDTH - RIGHT, margin=0.0)
    y = spanning([value for curve in curves for value in curve.values], HEIGHT - BOTTOM, TOP)
    return LineChart(
        metric=metric,
        lines=[_line(curve, x, y) for curve in curves],
        x_ticks=[tick for tick in x.ticks(5) if LEFT <= tick.place <= WIDTH - RIGHT],
        y_ticks=y.ticks(4),
        first_step=min(steps),
        last_step=max(steps),
    )


def _line(curve: Curve, x: Axis, y: Axis) -> Line:
    window = len(curve.values) // WINDOW_SHARE
    trend = running_mean(curve.values, window) if window > 1 else None
    ends_at = (trend or curve.values)[-1]
    return Line(
        split=curve.split,
        points=_points(curve.steps, curve.values, x, y),
        trend=None if trend is None else _points(curve.steps, trend, x, y),
        end=(x.place(curve.steps[-1]), y.place(ends_at)),
        last=ends_at,
    )


def _points(steps: Sequence[int], values: Sequence[float], x: Axis, y: Axis) -> str:
    return " ".join(f"{x.place(step)},{y.place(value)}" for step, value in zip(steps, values, strict=True))


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """The mean of each value and those within `window` / 2 of it, fewer at the ends."""
    half = window // 2
    parts = [values[max(0, index - half) : index + half + 1] for index in range(len(values))]
    return [sum(part) / len(part) for part in parts]


# --- gains ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ForestRow:
    """A gain and its interval in percent of the width."""

    line: RewardComparison
    low: float
    point: float
    high: float
    sign: int


@dataclass(frozen=True)
class Forest:
    """Gains of several rewards on one scale: standard deviations of the base images' scores."""

    rows: list[ForestRow]
    zero: float
    ticks: list[Tick]


def forest(lines: Sequence[RewardComparison]) -> Forest | None:
    """None where no reward has a scale."""
    scaled = [(line, line.effect_size / line.gain) for line in lines if line.effect_size and line.gain]
    if not scaled:
        return None
    bounds = [bound * unit for line, unit in scaled for bound in (line.gain_interval.low, line.gain_interval.high)]
    axis = spanning([0.0, *bounds], 2, 98)
    rows = [
        ForestRow(
            line=line,
            low=axis.place(line.gain_interval.low * unit),
            point=axis.place(line.gain * unit),
            high=axis.place(line.gain_interval.high * unit),
            sign=_sign(line),
        )
        for line, unit in scaled
    ]
    return Forest(rows, axis.place(0.0), axis.ticks(6))


def _sign(line: RewardComparison) -> int:
    """1 or -1 where the interval excludes zero, else 0."""
    return int(line.gain_interval.low > 0) - int(line.gain_interval.high < 0)


@dataclass(frozen=True)
class Bar:
    x: float
    y: float
    width: float
    height: float
    is_gain: bool
    caption: str


@dataclass(frozen=True)
class GainBars:
    """The gain of every prompt, sorted: how many gain, and how much."""

    name: str
    bars: list[Bar]
    zero: float
    ticks: list[Tick]
    num_prompts: int
    num_gaining: int
    num_losing: int


def gain_bars(name: str, gains: Sequence[tuple[str, float]]) -> GainBars:
    """Bars of the (prompt, gain) pairs; of more than `MOST_BARS` prompts, evenly chosen ones stand for their neighbours."""
    ranked = sorted(gains, key=lambda one: one[1])
    num = min(len(ranked), MOST_BARS)
    shown = [ranked[index * (len(ranked) - 1) // max(1, num - 1)] for index in range(num)]
    y = spanning([0.0, *(gain for _, gain in shown)], HEIGHT - BOTTOM, TOP)
    zero, slot = y.place(0.0), (WIDTH - LEFT - RIGHT) / num
    bars = [
        Bar(
            x=round(LEFT + index * slot + slot * 0.1, 2),
            y=min(zero, y.place(gain)),
            width=round(slot * 0.8, 2),
            height=round(max(0.5, abs(zero - y.place(gain))), 2),
            is_gain=gain >= 0,
            caption=f"{gain:+.3g}: {prompt}",
        )
        for index, (prompt, gain) in enumerate(shown)
    ]
    return GainBars(
        name=name,
        bars=bars,
        zero=zero,
        ticks=y.ticks(4),
        num_prompts=len(gains),
        num_gaining=sum(gain > 0 for _, gain in gains),
        num_losing=sum(gain < 0 for _, gain in gains),
    )
