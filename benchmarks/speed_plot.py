"""Plots of the benchmarks of speed: the same figures give the same bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "attune", "svg.fonttype": "none", "font.size": 9})

import matplotlib.pyplot as plt  # noqa: E402

AXES = {
    "rows": "rows",
    "micro_batch": "pairs in a micro-batch",
    "latent_side": "side of the latent",
    "processes": "processes",
}


def draw_scaling(found: Mapping[str, Any], path: Path) -> None:
    """A panel for each thing that a step's time may depend on."""
    figure, panels = plt.subplots(1, len(AXES), figsize=(13, 3.2), constrained_layout=True)
    for axes, (kind, label) in zip(panels, AXES.items(), strict=True):
        milliseconds = found[kind]["milliseconds"]
        places = [int(name) for name in milliseconds]
        axes.plot(places, list(milliseconds.values()), marker="o", color="#1b7f9c")
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:,}" for place in places])
        axes.minorticks_off()
        axes.set_ylim(0, 1.1 * max(milliseconds.values()))
        axes.set_xlabel(label)
        _plain(axes)
    panels[0].set_ylabel("ms a step")
    _save(figure, path)


def draw_caching(found: Mapping[str, Any], path: Path) -> None:
    """Images a second, in turns and ahead, by encoder."""
    figure, axes = plt.subplots(figsize=(5, 3.2), constrained_layout=True)
    names = list(found["encoders"])
    for offset, (way, color) in enumerate((("in_turns", "#999999"), ("ahead", "#1b7f9c"))):
        rates = [found["encoders"][name]["images_per_second"][way] for name in names]
        places = [place + 0.4 * offset for place in range(len(names))]
        axes.bar(places, rates, width=0.38, color=color, label=way.replace("_", " "))
    axes.set_xticks([place + 0.2 for place in range(len(names))], names)
    axes.set_ylabel("images/s")
    axes.legend(frameon=False)
    _plain(axes)
    _save(figure, path)


PARTS = {
    "text encoding": "#e0b43c",
    "denoising": "#1b7f9c",
    "VAE decode": "#7fb069",
    "reward": "#c8553d",
    "the rest": "#999999",
}


def draw_drawing(found: Mapping[str, Any], path: Path) -> None:
    """Seconds of a turn by part: a bar for each row and way of drawing."""
    bars = [(f"{row['case']}: {way}", parts) for row in found["rows"] for way, parts in row["parts"].items()][::-1]
    figure, axes = plt.subplots(figsize=(8, 0.3 * len(bars) + 1.2), constrained_layout=True)
    begun = [0.0] * len(bars)
    for part, color in PARTS.items():
        seconds = [parts.get(part, 0.0) for _, parts in bars]
        axes.barh([name for name, _ in bars], seconds, left=begun, color=color, label=part, height=0.7)
        begun = [start + more for start, more in zip(begun, seconds, strict=True)]
    axes.set_xlabel("seconds of a turn, its parts waited for one by one")
    axes.legend(frameon=False, fontsize=7)
    _plain(axes)
    _save(figure, path)


def _plain(axes: Any) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
