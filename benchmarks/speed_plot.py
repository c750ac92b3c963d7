"""Plots of the benchmarks of speed: the same figures give the same bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import (
    BLUE,
    DARK,
    GREEN,
    GREY,
    RED,
    YELLOW,
    grouped_bars,
    grouped_plot,
    plain,
    plt,
    save,
    stacked_bars,
)

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
        axes.plot(places, list(milliseconds.values()), marker="o", color=BLUE)
        axes.set_xscale("log")
        axes.set_xticks(places, [f"{place:,}" for place in places])
        axes.minorticks_off()
        axes.set_ylim(0, 1.1 * max(milliseconds.values()))
        axes.set_xlabel(label)
        plain(axes)
    panels[0].set_ylabel("ms a step")
    save(figure, path)


def draw_caching(found: Mapping[str, Any], path: Path) -> None:
    """Images a second, in turns and ahead, by encoder."""
    figure, axes = plt.subplots(figsize=(5, 3.2), constrained_layout=True)
    names = list(found["encoders"])
    for offset, (way, color) in enumerate((("in_turns", GREY), ("ahead", BLUE))):
        rates = [found["encoders"][name]["images_per_second"][way] for name in names]
        places = [place + 0.4 * offset for place in range(len(names))]
        axes.bar(places, rates, width=0.38, color=color, label=way.replace("_", " "))
    axes.set_xticks([place + 0.2 for place in range(len(names))], names)
    axes.set_ylabel("images/s")
    axes.legend(frameon=False)
    plain(axes)
    save(figure, path)


PARTS = {
    "text encoding": YELLOW,
    "denoising": BLUE,
    "VAE decode": GREEN,
    "reward": RED,
    "the rest": GREY,
}


def draw_drawing(found: Mapping[str, Any], path: Path) -> None:
    """Seconds of a turn by part: a bar for each row and way of drawing."""
    bars = [(f"{row['case']}: {way}", parts) for row in found["rows"] for way, parts in row["parts"].items()]
    figure, axes = plt.subplots(figsize=(8, 0.3 * len(bars) + 1.2), constrained_layout=True)
    stacked_bars(axes, bars, PARTS)
    axes.set_xlabel("seconds of a turn, its parts waited for one by one")
    axes.legend(frameon=False, fontsize=7)
    save(figure, path)


def draw_decoding(found: Mapping[str, Any], path: Path) -> None:
    """Images a second of each way."""
    rows = [(way.replace("_", " "), {"images/s": rate}) for way, rate in found["images_per_second"].items()]
    grouped_plot(path, rows, {"images/s": BLUE}, f"images/s ({found['workers']} threads or processes)")


SHARDS = {"waiting_seconds_per_step": "seconds of waiting a step", "fetched_per_step": "shards fetched a step"}
WAYS = {"as_needed": "as needed", "ahead": "ahead", "in_blocks": "ahead, in blocks"}


def draw_shards(found: Mapping[str, Any], path: Path) -> None:
    """What a step waits, and what it fetches, by the way in which shards are read."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 1.9), sharey=True, constrained_layout=True)
    for axes, (value, label) in zip(panels, SHARDS.items(), strict=True):
        grouped_bars(
            axes, [(name, {label: found[way][value]}) for way, name in WAYS.items() if way in found], {label: BLUE}
        )
        axes.set_xlabel(label)
    save(figure, path)


START = {
    "interpreter": DARK,
    "imports": YELLOW,
    "weights": BLUE,
    "hashes": GREEN,
    "data": RED,
    "rest": GREY,
    "first step": "#c9c9c9",
}
STATES = {"cold": "first run", "warm": "on a warm machine", "waits": "in a process that waited"}


def draw_start(found: Mapping[str, Any], path: Path) -> None:
    """CPU seconds by part, from the claim to the end of the first step."""
    bars = [
        (
            f"{row['adapter']}: {STATES[row['state']]}",
            {part: of["cpu_seconds"] for part, of in row["parts"].items()},
        )
        for row in found["rows"]
    ]
    figure, axes = plt.subplots(figsize=(9, 0.4 * len(bars) + 1.4), constrained_layout=True)
    stacked_bars(axes, bars, START)
    axes.set_xlabel(f"CPU seconds ({found['size']})")
    axes.legend(frameon=False, fontsize=7, ncols=2)
    save(figure, path)
