"""The frontier: what a gain costs in prompt-following. One panel for the curves over beta, one for the online methods."""

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams.update({"svg.hashsalt": "attune", "svg.fonttype": "none", "font.size": 9})

import matplotlib.pyplot as plt  # noqa: E402

from benchmarks.protocol import BETAS, PRESETS, ROWS, TUNED  # noqa: E402
from benchmarks.results import Results, beta_of  # noqa: E402
from benchmarks.statistics import mean_of  # noqa: E402

COLORS = {None: "#333333", "paper": "#1b7f9c", "seed": "#c8553d", "adaptive": "#6a994e"}
MARKERS = {"d3po": "o", "dpok": "s", "ddpo": "D", "tailorpo": "^", "tailorpo_g": "*"}


def draw(results: Results, path: Path) -> None:
    """Write the plot as SVG; the same results give the same bytes."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), constrained_layout=True)
    _curves(left, results)
    _online(right, results)
    for axes in (left, right):
        axes.set_xlabel("gain in colourfulness on held-out prompts")
        axes.set_ylabel("prompt-following (share of right attributes)")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _curves(axes: Any, results: Results) -> None:
    axes.set_title("Diffusion-DPO: a curve over beta for each variant")
    for row in TUNED:
        betas = [beta for beta in BETAS if results.has(row.key, beta)]
        gains, kept = ([mean_of(results.of(row.key, name, beta)) for beta in betas] for name in ("gain", "following"))
        if not betas:
            continue
        axes.errorbar(
            [mean.value for mean in gains],
            [mean.value for mean in kept],
            xerr=[mean.half_width for mean in gains],
            yerr=[mean.half_width for mean in kept],
            color=COLORS[row.preset_reference],
            marker="o",
            markersize=4,
            linewidth=1.2,
            elinewidth=0.6,
            label=row.label,
        )
        axes.annotate(f"{betas[0]:g}", (gains[0].value, kept[0].value), textcoords="offset points", xytext=(4, -10))


def _online(axes: Any, results: Results) -> None:
    axes.set_title("Online methods, at the settings of the table")
    for row in ROWS:
        if row.family == "offline" or not results.has(row.key, beta_of(row.key)):
            continue
        gain, kept = (mean_of(results.of(row.key, name)) for name in ("gain", "following"))
        plain = row.key.removesuffix(f"_both_{row.preset_reference}") if row.preset_reference in PRESETS else row.key
        axes.errorbar(
            gain.value,
            kept.value,
            xerr=gain.half_width,
            yerr=kept.half_width,
            color=COLORS[row.preset_reference],
            marker=MARKERS[plain],
            markersize=7,
            linestyle="none",
            elinewidth=0.6,
            label=row.label,
        )
