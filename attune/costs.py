"""What a job was estimated to cost, for a terminal."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Column, Table

from attune.tables import bytes_of, listing, memory_of

COMPONENTS = ("weights", "gradients", "optimizer", "reference", "activations", "vae_decode", "conditioning", "judges")
UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


def cost_table(estimate: Mapping[str, Any]) -> Table | None:
    """Memory, time and bytes, each with what it is made of; None where nothing of it is known."""
    rows = [
        *_memory(estimate.get("memory")),
        *_time(estimate.get("duration")),
        *_calibrated(estimate.get("calibration")),
        *_disk(estimate.get("disk")),
    ]
    if not rows:
        return None
    table = listing(Column("cost", min_width=6), Column("about", min_width=9), "of it")
    for row in rows:
        table.add_row(*row)
    return table


def _memory(memory: Mapping[str, Any] | None) -> Iterable[tuple[str, str, str]]:
    if memory is not None:
        peak, scale = memory["peak_gib"], 1 if memory["peak_gib"] >= 1 else 1024  # of the parts too
        sizes = sorted(((memory.get(name, 0.0), name.replace("_", " ")) for name in COMPONENTS), reverse=True)
        parts = ", ".join(f"{name} {scale * size:.2g}" for size, name in sizes if size >= 0.01 * peak)
        yield "memory", memory_of(peak), f"{memory['phase']}: {parts}"


def _time(duration: Mapping[str, Any] | None) -> Iterable[tuple[str, str, str]]:
    if duration is not None:
        total, phases = duration["total"], duration["phases"]
        parts = ", ".join(f"{name} {duration_text(one['expected'])}" for name, one in phases.items())
        yield (
            "time",
            duration_text(total["expected"]),
            f"{duration_text(total['low'])} to {duration_text(total['high'])}: {parts}",
        )
        card = duration["card"] or "a machine that nobody has named"
        yield "", "", f"{_basis(duration['source'])}: {card}"


def _calibrated(calibration: Mapping[str, Any] | None) -> Iterable[tuple[str, str, str]]:
    if calibration is not None and calibration["low"] is not None:
        between = f"{duration_text(calibration['low'])} to {duration_text(calibration['high'])}"
        yield "", "", f"four of five take {between}, by {calibration['num_jobs']} such jobs"


def _basis(source: str) -> str:
    return {"jobs": "measured by jobs on", "card": "measured before on", "guess": "a guess for"}.get(source, source)


def _disk(disk: Mapping[str, Any] | None) -> Iterable[tuple[str, str, str]]:
    if disk is not None:
        cache = "" if disk["cache_bytes"] is None else f"; cache {bytes_of(disk['cache_bytes'])}"
        yield "disk", bytes_of(disk["checkpoints_bytes"]), f"a checkpoint {bytes_of(disk['checkpoint_bytes'])}{cache}"


def duration_text(value: float) -> str:
    size, unit = next(((size, unit) for size, unit in UNITS if value >= size), (1, "s"))
    return f"{value / size:.2g} {unit}" if value < 10 * size else f"{value / size:.0f} {unit}"
