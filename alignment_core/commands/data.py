"""`check` and `prepare`: preference data, looked at or written anew."""

import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from alignment_core.commands.outcome import EXIT_COMPLETED, EXIT_UNUSABLE, failed, failure_of, print_report
from alignment_core.disk_errors import disk_error_of
from alignment_core.errors import AlignmentError, DataError
from alignment_core.spec import ColumnMapping
from alignment_core.spec.sources import OnBadRow


def _columns(text: str | None) -> dict[str, str] | None:
    """A mapping of columns as JSON."""
    if text is None:
        return None
    try:
        found = TypeAdapter(ColumnMapping).validate_json(text)
    except ValidationError as error:
        problems = "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())
        raise DataError("columns_invalid", f"--columns: expected JSON of role to column: {problems}") from error
    return {str(role): name for role, name in found.items()}


def prepare(data: Path, out: Path, columns: str | None, on_bad_row: OnBadRow) -> int:
    from alignment_core.datasets.prepare import prepare_parquet

    try:
        prepared = prepare_parquet(data, out, _columns(columns), on_bad_row)
    except AlignmentError as error:
        return failed(failure_of(error, None))
    print(json.dumps(asdict(prepared)), flush=True)  # noqa: T201
    return EXIT_COMPLETED


def check(
    data: Path, columns: str | None, on_bad_row: OnBadRow, browsing: Path | None = None, filename: str | None = None
) -> int:
    from alignment_core.datasets.preflight import check_and_show, check_preferences

    try:
        if browsing is None:
            report = check_preferences(data, _columns(columns), on_bad_row)
        else:
            report = check_and_show(data, _columns(columns), on_bad_row, browsing, filename or data.name)
    except (AlignmentError, OSError) as error:
        found = disk_error_of(error) or error
        if not isinstance(found, AlignmentError):
            raise
        return failed(failure_of(found, None))
    print_report(report)
    return EXIT_COMPLETED if report.is_usable else EXIT_UNUSABLE
