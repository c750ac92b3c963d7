"""The table of docs/reliability.md, made of the rows that were measured."""

from collections.abc import Mapping, Sequence
from typing import Any

COLUMNS = {"embedded": "embedded", "full": "PostgreSQL, S3, Redis"}


def table_of(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Markdown, a line a fault, in the order in which they were measured."""
    found = {(row["fault"], row["parts"]): row for row in rows}
    lines = [f"| fault | {' | '.join(COLUMNS.values())} |", "|---|---|---|"]
    for fault in dict.fromkeys(row["fault"] for row in rows):
        lines.append(f"| {fault} | {' | '.join(_cell(found.get((fault, parts))) for parts in COLUMNS)} |")
    return lines


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or "skipped" in row:
        return "-"
    if row["broken"]:
        return f"**broken**: {row.get('error') or row['status']}"
    recovery = "nothing left to do" if row["recovery_seconds"] is None else f"{row['recovery_seconds']:.1f} s"
    twice = f", {row['steps_twice']} twice" if row["steps_twice"] else ""
    resumed = ", resumed by its owner" if row["resumed_by_owner"] else ""
    return recovery + twice + resumed
