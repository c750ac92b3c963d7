"""The preflight report of a dataset that has not changed since it was last checked, without decoding it again."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from alignment_core.datasets.cache import write_durably
from alignment_core.datasets.preflight import check_preferences
from alignment_core.reports import DatasetReport

# Part of the key: a change of what preflight looks for must change it.
PREFLIGHT_VERSION = "v4"


def check_preferences_once(path: Path, cache_dir: Path, columns: Mapping[str, str] | None = None) -> DatasetReport:
    """`check_preferences(path, columns)`, or its answer of the last time that these files had these sizes and times of change."""
    remembered = cache_dir / "preflight" / f"{_state_of(path, columns)}.json"
    try:
        return DatasetReport.model_validate_json(remembered.read_bytes())
    except (OSError, ValidationError):
        report = check_preferences(path, columns)
    remembered.parent.mkdir(parents=True, exist_ok=True)
    write_durably(remembered, report.model_dump_json().encode())
    return report


def _state_of(path: Path, columns: Mapping[str, str] | None) -> str:
    """Hash of the mapping of columns, and of the names, sizes and times of change of the file, or of every file of the folder."""
    real = path.resolve()
    digest = hashlib.sha256(f"{PREFLIGHT_VERSION} {json.dumps(columns, sort_keys=True)}".encode())
    for file in [real] if real.is_file() else sorted(entry for entry in real.rglob("*") if entry.is_file()):
        stat = file.stat()
        digest.update(f"\n{file} {stat.st_size} {stat.st_mtime_ns} {stat.st_ino}".encode())
    return digest.hexdigest()
