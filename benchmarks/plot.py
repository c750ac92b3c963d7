"""The frontier: what a gain costs in prompt-following, and in diversity: curves over beta, and the online methods."""

from pathlib import Path
from typing import Any

from benchmarks.figures import BLUE, DARK, RED, plain, plt, save
from benchmarks.protocol import BETAS, CONTROL_BETAS, PRESETS, ROWS, TUNED
from benchmarks.results import Results, beta_of
from benchmarks.statistics import mean_of

COLORS = {None: DARK, "paper": BLUE, "seed": RED, "adaptive": "#6a994e"}
PRICES = {"following": "prompt-following (share of right attributes)", "diversity": "diversity (base: 0.116)"}
MARKERS = {"d3po": "o", "dpok": "s", "ddpo": "D", "tailorpo": "^", "tailorpo_g": "*"}


def draw(results: Results, path: Path) -> None:
    """Write the plot as SVG; the same results give the same bytes."""
    figure, panels = plt.subplots(2, 2, figsize=(11, 8.6), constrained_layout=True)
    for line, (figure_name, label) in zip(panels, PRICES.items(), strict=True):
        _curves(line[0], results, figure_name)
        _online(line[1], results, figure_name)
        for axes in line:
            axes.set_ylabel(label)
    for axes in panels.flat:
        axes.set_xlabel("gain in colourfulness on held-out prompts")
        plain(axes)
    panels[0, 0].legend(frameon=False, fontsize=8, loc="lower left")
    panels[0, 1].legend(frameon=False, fontsize=7, loc="lower left")
    save(figure, path)


def _curves(axes: Any, results: Results, price: str) -> None:
    axes.set_title("Diffusion-DPO: a curve over beta for each variant")
    for row in TUNED:
        betas = [beta for beta in sorted({*BETAS, *CONTROL_BETAS}) if results.has(row.key, beta)]
        gains, kept = ([mean_of(results.of(row.key, name, beta)) for beta in betas] for name in ("gain", price))
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


def _online(axes: Any, results: Results, price: str) -> None:
    axes.set_title("Online methods, at the settings of the table")
    for row in ROWS:
        if row.family == "offline" or not results.has(row.key, beta_of(row.key)):
            continue
        gain, kept = (mean_of(results.of(row.key, name)) for name in ("gain", price))
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
