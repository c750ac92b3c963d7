"""Problems of a dataset, gathered by kind while its rows go by."""

from dataclasses import dataclass, field

from alignment_core.datasets.rows import Severity
from alignment_core.reports import DatasetProblem

ROWS_LISTED = 100


@dataclass
class _Kind:
    severity: Severity
    message: str
    rows: set[int] = field(default_factory=set)
    count: int | None = None


class Problems:
    """Kinds of problems in the order in which they were first met; a row counts once a kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def add(self, code: str, severity: Severity, row: int, message: str) -> None:
        """A problem of one row. The message of the kind's first row is the one that is kept."""
        self._kinds.setdefault(code, _Kind(severity, message)).rows.add(row)

    def add_overall(self, code: str, severity: Severity, count: int, message: str) -> None:
        """A problem of the dataset as a whole, which concerns `count` rows."""
        self._kinds[code] = _Kind(severity, message, count=count)

    def report(self) -> list[DatasetProblem]:
        """Errors first."""
        found = [
            DatasetProblem(
                code=code,
                severity=kind.severity,
                message=kind.message,
                count=len(kind.rows) if kind.count is None else kind.count,
                rows=sorted(kind.rows)[:ROWS_LISTED],
            )
            for code, kind in self._kinds.items()
        ]
        return sorted(found, key=lambda problem: problem.severity != "error")
