"""What the commands for evaluations and for candidates say alike: both have models draw side by side."""

from collections.abc import Iterable
from pathlib import Path

from rich.table import Table

from attune.candidates import CandidatesSummary
from attune.resources.evaluations import EvaluationSummary, EvaluationValidation
from attune.tables import id_column, listing


def newest(prefix: str, rows: Iterable[EvaluationSummary | CandidatesSummary], limit: int) -> Table:
    """A line for each of the first rows; `prefix` is that of their ids."""
    table = listing(id_column(prefix), "status", "images", "name")
    for _, one in zip(range(limit), rows, strict=False):
        total = "" if one.progress.total is None else f" of {one.progress.total}"
        table.add_row(one.id, one.status, f"{one.progress.done}{total}", one.name or "")
    return table


def num_images(found: EvaluationValidation, file: Path) -> str:
    """Of a spec that would be taken; `ValueError` names the file and all that is wrong in it."""
    if not found.valid:
        wrong = [f"{one['pointer']}: {one['message']}" for one in found.errors]
        raise ValueError("\n  ".join([f"{file} cannot be used:", *wrong]))
    return f"{(found.estimate or {}).get('num_images') or 'an unknown number of'} images"
