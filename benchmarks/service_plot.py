"""Plots of the benchmarks of the service: the same figures give the same bytes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.figures import BLUE, GREY, RED, Row, grouped_plot

COLORS = {"embedded": BLUE, "full": RED}
PALER = {"embedded": "#9ccbd8", "full": "#e8b3a7"}
LABELS = {"embedded": "SQLite, a directory", "full": "PostgreSQL, S3"}


def draw_service(found: Mapping[str, Any], path: Path) -> None:
    """How many times as long each takes as what it is held against."""
    rows = found["rows"]
    names = dict.fromkeys(row["what"] for row in rows)
    shown = [parts for parts in COLORS if any(row["parts"] == parts for row in rows)]
    values: list[Row] = [
        (name, {LABELS[row["parts"]]: row["ratio"] for row in rows if row["what"] == name}) for name in names
    ]
    label = "times as long as an empty endpoint\n(files: as a plain copy or plain boto3; watchers: as without them)"
    grouped_plot(path, values, {LABELS[parts]: COLORS[parts] for parts in shown}, label, against=[1.0], is_log=True)


def draw_pages(found: Mapping[str, Any], path: Path) -> None:
    """Milliseconds until a page's first answer, alone and beside the streams, against the target."""

    def series(row: Mapping[str, Any]) -> str:
        return f"{LABELS[row['parts']]}: {'beside streams' if row['watchers'] else 'alone'}"

    rows = found["rows"]
    names = dict.fromkeys(row["what"] for row in rows)
    colors = {series(row): (COLORS if row["watchers"] else PALER)[row["parts"]] for row in rows}
    values: list[Row] = [
        (name, {series(row): 1000 * row["seconds"] for row in rows if row["what"] == name}) for name in names
    ]
    label = f"ms to the first answer of a page; the line is the target of {found['target_ms']} ms"
    grouped_plot(path, values, colors, label, against=[found["target_ms"]], is_log=True)


def draw_thumbnails(found: Mapping[str, Any], path: Path) -> None:
    """Milliseconds of the processor that a row takes to be checked."""
    series = {"without": GREY, "with": BLUE}
    rows: list[Row] = [
        (name, {way: 1000 * of[f"seconds {way}"] / of["rows"] for way in series})
        for name, of in found["data_sets"].items()
    ]
    grouped_plot(path, rows, series, "ms of the processor a row that is checked, without thumbnails and with them")
