"""The preflight report of a dataset that has not changed since it was last checked, without decoding it again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from alignment_core.datasets.durable_files import write_durably
from alignment_core.datasets.preflight import Checked, check_rows
from alignment_core.reports import DatasetReport, ReportBase
from alignment_core.spec.sources import OnBadRow

# Part of the key: a change of what preflight looks for must change it.
PREFLIGHT_VERSION = "v5"


class _Remembered(ReportBase):
    report: DatasetReport
    dropped: tuple[int, ...]


def check_rows_once(
    path: Path, cache_dir: Path, columns: Mapping[str, str] | None = None, on_bad_row: OnBadRow = "fail"
) -> Checked:
    """`check_rows(...)`, or its answer of the last time that these files had these sizes and times of change."""
    remembered = cache_dir / "preflight" / f"{state_of(path, columns, on_bad_row)}.json"
    try:
        found = _Remembered.model_validate_json(remembered.read_bytes())
        return Checked(found.report, frozenset(found.dropped))
    except (OSError, ValidationError):
        checked = check_rows(path, columns, on_bad_row)
    remembered.parent.mkdir(parents=True, exist_ok=True)
    kept = _Remembered(report=checked.report, dropped=tuple(sorted(checked.dropped)))
    write_durably(remembered, kept.model_dump_json().encode())
    return checked


def state_of(path: Path, columns: Mapping[str, str] | None, on_bad_row: OnBadRow) -> str:
    """Hash of how it is read, and of the names, sizes and times of change of the file, or of every file of the folder."""
    real = path.resolve()
    digest = hashlib.sha256(f"{PREFLIGHT_VERSION} {on_bad_row} {json.dumps(columns, sort_keys=True)}".encode())
    for file in [real] if real.is_file() else sorted(entry for entry in real.rglob("*") if entry.is_file()):
        stat = file.stat()
        digest.update(f"\n{file} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}".encode())
    return digest.hexdigest()
