"""Plots of what half precision costs: the same figures give the same bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import BLUE, GREY, RED, Row, grouped_plot


def draw_precision(found: Mapping[str, Any], path: Path) -> None:
    """How far off a logit is, beside how large it is."""
    colors = {"fp16": BLUE, "bf16": RED, "the logit": GREY}
    groups: dict[str, dict[str, float]] = {}
    for row in found["rows"]:
        of = groups.setdefault(f"{row['family']}, {row['latent']} x {row['latent']}", {})
        of |= {row["precision"]: row["logit_error"], "the logit": row["logit_rms"]}
    grouped_plot(path, list(groups.items()), colors, "root mean square of the error of u, and of u", is_log=True)


def draw_latent_precision(found: Mapping[str, Any], path: Path) -> None:
    """How far the latents move, in units of what rounding pixels to 8 bits does; the line is the bound."""
    rows: list[Row] = [(f"{row['family']}: {row['encoded']}", {"error": row["latent_error"]}) for row in found["rows"]]
    label = f"error of the latents, in roundings of the pixels; the line is the bound of {found['bound']:g}"
    grouped_plot(path, rows, {"error": BLUE}, label, against=[found["bound"]], is_log=True)
