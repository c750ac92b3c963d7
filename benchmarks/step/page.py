"""A line for each row, the plot of all, and their table in a page."""

from pathlib import Path
from typing import Any

from benchmarks.figures import BLUE, DARK, RED, plt, save
from benchmarks.marks import put_between


def line_of(row: dict[str, Any]) -> str:
    """One row as text."""
    target = f" (target {row['target']})" if row["target"] else ""
    peak = (
        f", memory of tensors {row['tensors_ratio']:.2f}, of the process {row['peak_ratio']:.2f}"
        if row["peak_ratio"]
        else ""
    )
    ours, plain = (row["seconds"][of]["median"] for of in ("ours", "plain"))
    agrees = "" if row["agrees"] else " DIFFERENT NUMBERS:"
    return (
        f"{row['case']}:{agrees} {row['ratio']:.2f} times as fast{target}: {ours:.3f} s against {plain:.3f} s{peak}; "
        f"loss differs by {row['loss_differs_by']:.0e}, gradient by {row['gradient_differs_by']:.0e}"
    )


BEGIN, END = "<!-- train_step: written by the benchmark -->", "<!-- train_step: end -->"
HEAD = (
    "| method | times as fast | target | by FLOPs alone | Attune, s | plain, s | memory: tensors | process | loss, gradient differ by |",
    "|---|---|---|---|---|---|---|---|---|",
)


def table_of(found: dict[str, Any]) -> str:
    """All rows, and what they were measured on."""
    lines = [f"{found['device']}, {found['date']}, one run.", "", *HEAD, *(_table_row(row) for row in found["rows"])]
    return "\n".join(lines)


def _table_row(row: dict[str, Any]) -> str:
    ours, plain = (f"{row['seconds'][of]['median']:.3f}" for of in ("ours", "plain"))
    shares = ("-" if row[name] is None else f"{row[name]:.2f}" for name in ("tensors_ratio", "peak_ratio"))
    differ = f"{row['loss_differs_by']:.0e}, {row['gradient_differs_by']:.0e}"
    cells = (
        row["case"],
        f"**{row['ratio']:.2f}**",
        row["target"] or "",
        row["by_flops"] or "",
        ours,
        plain,
        *shares,
        differ,
    )
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def into_page(found: dict[str, Any], page: Path) -> None:
    """Put the table where the page has its marks; a page without them stays as it is."""
    put_between(page, BEGIN, END, table_of(found))


def draw(found: dict[str, Any], path: Path) -> None:
    """Write the plot as SVG; the same figures give the same bytes."""
    rows = found["rows"][::-1]
    figure, axes = plt.subplots(figsize=(7.5, 0.45 * len(rows) + 1.2), constrained_layout=True)
    axes.barh([row["case"] for row in rows], [row["ratio"] for row in rows], color=BLUE, height=0.6)
    for place, row in enumerate(rows):
        if row["target"]:
            axes.plot([row["target"]] * 2, [place - 0.4, place + 0.4], color=RED, linewidth=2)
    axes.axvline(1, color=DARK, linewidth=0.8)
    axes.set_xlabel(f"times as fast as the plain implementation\n({found['size']}, {found['device']})")
    axes.spines[["top", "right"]].set_visible(False)
    save(figure, path)
