"""Plots of what was estimated against what was measured: the same figures give the same bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import BLUE, DARK, GREEN, GREY, RED, Row, grouped_plot, plain, plt, save

BOTH = {"estimated": GREY, "measured": BLUE}
MIB_IN_A_GIB = 1024


def draw_memory(found: Mapping[str, Any], path: Path) -> None:
    """Estimated over measured, a point a setting: of what a card would hold, where it is compared."""
    figure, axes = plt.subplots(figsize=(6, 5), constrained_layout=True)
    for family in dict.fromkeys(row["model"] for row in found["results"]):
        points = [row for row in found["results"] if row["model"] == family]
        ratios = [row.get("ratio", row["ratio_on_a_cpu"]) for row in points]
        axes.scatter([row["measured_gib"] for row in points], ratios, label=family)
    axes.axhspan(0.9, 1.1, alpha=0.12, color="black", lw=0)
    axes.set(xscale="log", xlabel="measured, GiB", ylabel="estimated over measured")
    axes.legend(frameon=False)
    save(figure, path)


def draw_collective_memory(found: Mapping[str, Any], path: Path) -> None:
    """MiB of the process that holds more."""
    rows: list[Row] = [
        (row["setting"], {name: MIB_IN_A_GIB * row[f"{name}_gib"] for name in BOTH}) for row in found["results"]
    ]
    grouped_plot(path, rows, BOTH, "MiB at the peak of each of two processes")


def draw_peak(found: Mapping[str, Any], path: Path) -> None:
    """GiB of a step by micro-batch; what ran out of memory has no bar."""
    rows: list[Row] = [
        (
            f"{row['batch_size']} pairs" + (" (failed)" if "failed" in row else ""),
            {} if "failed" in row else {"estimated": row["estimated_gib"], "measured": row["peak_gib"]},
        )
        for row in found["results"]
    ]
    grouped_plot(path, rows, BOTH, f"GiB at the peak of a step ({found['size']})")


def draw_durations(found: Mapping[str, Any], path: Path) -> None:
    """Estimated over measured seconds; the lines are as long, and the bounds after one job: half and double."""
    colors = {"training": BLUE, "evaluating": GREEN, "all": GREY}
    rows: list[Row] = [(f"{row['model']}: {row['case']}", row["ratio"]) for row in found["rows"]]
    grouped_plot(path, rows, colors, "estimated over measured seconds of the CPU", against=[0.5, 1.0, 2.0])


def draw_calibration(found: Mapping[str, Any], path: Path) -> None:
    """The interval of each job that had one, and what it took, over the expected seconds."""
    judged = [job for job in found["jobs"] if job["low"] is not None]
    figure, axes = plt.subplots(figsize=(9, 3.2), constrained_layout=True)
    lows, highs = ([job[end] / job["expected"] for job in judged] for end in ("low", "high"))
    axes.vlines(range(len(judged)), lows, highs, color=GREY, linewidth=3, alpha=0.6, label="interval")
    for held, color, label in ((True, BLUE, "took, within"), (False, RED, "took, outside")):
        places = [place for place, job in enumerate(judged) if (job["low"] <= job["took"] <= job["high"]) == held]
        values = [judged[place]["took"] / judged[place]["expected"] for place in places]
        axes.scatter(places, values, color=color, s=18, label=label, zorder=3)
    axes.axhline(1.0, color=DARK, linewidth=0.8)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("jobs that had an interval, one after the other")
    axes.set_ylabel("over the expected seconds")
    figure.legend(loc="outside upper right", ncols=3, frameon=False, fontsize=8)
    plain(axes)
    save(figure, path)
