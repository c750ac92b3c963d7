"""The plot of `benchmarks/service.py`: how many times as long each takes as what it is held against."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "attune", "svg.fonttype": "none", "font.size": 9})

import matplotlib.pyplot as plt  # noqa: E402

COLORS = {"embedded": "#1b7f9c", "full": "#c8553d"}
LABELS = {"embedded": "SQLite, a directory", "full": "PostgreSQL, S3"}


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the plot as SVG; the same rows give the same bytes."""
    names = list(dict.fromkeys(row["what"] for row in rows))
    figure, axes = plt.subplots(figsize=(9, 0.32 * len(names) + 1.2), constrained_layout=True)
    shown = [parts for parts in COLORS if any(row["parts"] == parts for row in rows)]
    for index, parts in enumerate(shown):
        found = {row["what"]: row["ratio"] for row in rows if row["parts"] == parts}
        places = [place + 0.36 * (index - (len(shown) - 1) / 2) for place, name in enumerate(names) if name in found]
        values = [found[name] for name in names if name in found]
        axes.barh(places, values, height=0.34, color=COLORS[parts], label=LABELS[parts])
        for place, value in zip(places, values, strict=True):
            axes.annotate(f" {value:.3g}", (value, place), va="center", fontsize=7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.axvline(1.0, color="#333333", linewidth=0.8)
    axes.set_xlabel(
        "times as long as an empty endpoint; files: as a plain copy or plain boto3; watchers: as without them"
    )
    axes.grid(alpha=0.25, axis="x")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
