"""A line for each row, and the plot of all."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "attune", "svg.fonttype": "none", "font.size": 9})

import matplotlib.pyplot as plt  # noqa: E402


def line_of(row: dict[str, Any]) -> str:
    """One row as text."""
    target = f" (target {row['target']})" if row["target"] else ""
    peak = f", peak memory {row['peak_ratio']:.2f}" if row["peak_ratio"] else ""
    ours, plain = (row["seconds"][of]["median"] for of in ("ours", "plain"))
    agrees = "" if row["agrees"] else " DIFFERENT NUMBERS:"
    return (
        f"{row['case']}:{agrees} {row['ratio']:.2f} times as fast{target}: {ours:.3f} s against {plain:.3f} s{peak}; "
        f"loss differs by {row['loss_differs_by']:.0e}, gradient by {row['gradient_differs_by']:.0e}"
    )


def draw(found: dict[str, Any], path: Path) -> None:
    """Write the plot as SVG; the same figures give the same bytes."""
    rows = found["rows"][::-1]
    figure, axes = plt.subplots(figsize=(7.5, 0.45 * len(rows) + 1.2), constrained_layout=True)
    axes.barh([row["case"] for row in rows], [row["ratio"] for row in rows], color="#1b7f9c", height=0.6)
    for place, row in enumerate(rows):
        if row["target"]:
            axes.plot([row["target"]] * 2, [place - 0.4, place + 0.4], color="#c8553d", linewidth=2)
    axes.axvline(1, color="#333333", linewidth=0.8)
    axes.set_xlabel(f"times as fast as the plain implementation ({found['size']}, {found['device']})")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
