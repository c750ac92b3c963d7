"""What all plots share: how they look, horizontal bars, and that the same figures give the same bytes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "attune", "svg.fonttype": "none", "font.size": 9})

import matplotlib.pyplot as plt  # noqa: E402

BLUE, RED, YELLOW, GREEN, GREY, DARK = "#1b7f9c", "#c8553d", "#e0b43c", "#7fb069", "#999999", "#333333"

Row = tuple[str, Mapping[str, float]]  # a name, and a value of each series that it has one of


def plain(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def save(figure: Any, path: Path) -> None:
    """As SVG, without a date."""
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def grouped_bars(axes: Any, rows: Sequence[Row], colors: Mapping[str, str]) -> None:
    """From the top down a group for each row, in it a bar with its value for each series of `colors`."""
    height = 0.72 / len(colors)
    for index, (series, color) in enumerate(colors.items()):
        here = [(place, values[series]) for place, (_, values) in enumerate(rows) if series in values]
        places = [place + height * (index - (len(colors) - 1) / 2) for place, _ in here]
        axes.barh(places, [value for _, value in here], height=0.94 * height, color=color, label=series)
        for place, (_, value) in zip(places, here, strict=True):
            axes.annotate(f" {value:.3g}", (value, place), va="center", fontsize=7)
    axes.set_yticks(range(len(rows)), [name for name, _ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)


def stacked_bars(axes: Any, rows: Sequence[Row], colors: Mapping[str, str]) -> None:
    """From the top down a bar for each row, the series of `colors` one after the other."""
    upwards = rows[::-1]
    begun = [0.0] * len(upwards)
    for series, color in colors.items():
        values = [of.get(series, 0.0) for _, of in upwards]
        axes.barh([name for name, _ in upwards], values, left=begun, color=color, label=series, height=0.7)
        begun = [start + more for start, more in zip(begun, values, strict=True)]
    plain(axes)


def grouped_plot(
    path: Path,
    rows: Sequence[Row],
    colors: Mapping[str, str],
    label: str,
    *,
    against: Sequence[float] = (),
    is_log: bool = False,
) -> None:
    """A plot of nothing but groups of bars; `against` are values that they are held against."""
    height = 0.16 * max(2, len(colors)) * len(rows) + 1.2
    figure, axes = plt.subplots(figsize=(9, height), constrained_layout=True)
    grouped_bars(axes, rows, colors)
    if is_log:
        axes.set_xscale("log")
    for value in against:
        axes.axvline(value, color=DARK, linewidth=0.8)
    axes.set_xlabel(label)
    if len(colors) > 1:
        figure.legend(loc="outside upper right", ncols=len(colors), frameon=False, fontsize=8)
    save(figure, path)
