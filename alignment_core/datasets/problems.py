"""Problems of a dataset, gathered by kind while its rows go by."""

from dataclasses import dataclass, field

from alignment_core.datasets.rows import BadRow, Severity
from alignment_core.reports import DatasetProblem, RowProblem

ROWS_LISTED = 100


@dataclass
class _Kind:
    severity: Severity
    message: str
    rows: set[int] = field(default_factory=set)
    reasons: dict[int, str] = field(default_factory=dict)
    count: int | None = None


class Problems:
    """Kinds of problems in the order in which they were first met; a row counts once a kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def add(self, code: str, severity: Severity, row: int, message: str) -> None:
        """A problem of one row. The message of the kind's first row is the one that is kept."""
        self._kinds.setdefault(code, _Kind(severity, message)).rows.add(row)

    def add_bad(self, row: BadRow) -> None:
        """A row that cannot be used; its own reason is kept beside that of the first."""
        self.add(row.code, row.severity, row.number, f"first in row {row.number}: {row.message}")
        reasons = self._kinds[row.code].reasons
        if len(reasons) < ROWS_LISTED:
            reasons[row.number] = row.message

    def add_overall(self, code: str, severity: Severity, count: int, message: str) -> None:
        """A problem of the dataset as a whole, which concerns `count` rows."""
        self._kinds[code] = _Kind(severity, message, count=count)

    def report(self) -> list[DatasetProblem]:
        """Errors first."""
        found = [
            DatasetProblem(
                code=code,
                severity=kind.severity,
                message=_summary(kind),
                count=len(kind.rows) if kind.count is None else kind.count,
                rows=sorted(kind.rows)[:ROWS_LISTED],
                details=_details(kind),
            )
            for code, kind in self._kinds.items()
        ]
        return sorted(found, key=lambda problem: problem.severity != "error")


def _details(kind: _Kind) -> list[RowProblem]:
    if len(set(kind.reasons.values())) < 2:
        return []
    return [RowProblem(row=row, message=message) for row, message in sorted(kind.reasons.items())]


def _summary(kind: _Kind) -> str:
    others = len(set(kind.reasons.values())) - 1
    return (
        f"{kind.message} ({others} more reason{'s' if others > 1 else ''} in other rows)"
        if others > 0
        else kind.message
    )
