"""The preflight report of a dataset that has not changed since it was last checked, without decoding it again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.numpy import load, save

from alignment_core.datasets.durable_files import write_durably
from alignment_core.datasets.in_parts import file_in_parts, is_in_parts
from alignment_core.datasets.notes import Notes
from alignment_core.datasets.preflight import Checked, check_rows
from alignment_core.reports import DatasetReport, ReportBase
from alignment_core.spec.sources import OnBadRow

# Part of the key: a change of what preflight looks for must change it.
PREFLIGHT_VERSION = "v5"
REPORT = "report"


class _Remembered(ReportBase):
    report: DatasetReport
    dropped: tuple[int, ...]


def check_rows_once(
    path: Path,
    cache_dir: Path,
    columns: Mapping[str, str] | None = None,
    on_bad_row: OnBadRow = "fail",
    notes: Notes | None = None,
) -> Checked:
    """`check_rows(...)`, or its answer of the last time that these files had these sizes and times of change; for a file that is read in
    parts, and so is known by its content, the answer is among the `notes` too."""
    state = state_of(path, columns, on_bad_row)
    remembered = cache_dir / "preflight" / f"{state}.json"
    if (found := _recalled(remembered, state, notes)) is not None:
        return found
    checked = check_rows(path, columns, on_bad_row)
    remembered.parent.mkdir(parents=True, exist_ok=True)
    kept = _Remembered(report=checked.report, dropped=tuple(sorted(checked.dropped))).model_dump_json().encode()
    write_durably(remembered, kept)
    if notes is not None:
        notes.keep(state, save({REPORT: np.frombuffer(kept, dtype=np.uint8)}))
    return checked


def _recalled(remembered: Path, state: str, notes: Notes | None) -> Checked | None:
    try:
        if not remembered.exists() and notes is not None and (shared := notes.recall(state)) is not None:
            content = load(shared)[REPORT].tobytes()
        else:
            content = remembered.read_bytes()
        found = _Remembered.model_validate_json(content)
    except (OSError, ValidationError, SafetensorError, KeyError):
        return None
    return Checked(found.report, frozenset(found.dropped))


def state_of(path: Path, columns: Mapping[str, str] | None, on_bad_row: OnBadRow) -> str:
    """Hash of how it is read, and of the names, sizes and times of change of the file, or of every file of the folder."""
    if is_in_parts(path):  # which says what is in it, on every machine
        read = f"{PREFLIGHT_VERSION} {on_bad_row} {json.dumps(columns, sort_keys=True)}"
        return hashlib.sha256(f"{read}\n{file_in_parts(path).note.sha256}".encode()).hexdigest()
    real = path.resolve()
    digest = hashlib.sha256(f"{PREFLIGHT_VERSION} {on_bad_row} {json.dumps(columns, sort_keys=True)}".encode())
    for file in [real] if real.is_file() else sorted(entry for entry in real.rglob("*") if entry.is_file()):
        stat = file.stat()
        digest.update(f"\n{file} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}".encode())
    return digest.hexdigest()
