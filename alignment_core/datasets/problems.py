"""Problems of a dataset, gathered by kind while its rows go by."""

from dataclasses import dataclass, field

from alignment_core.browsing import RowNote
from alignment_core.datasets.rows import BadRow, Severity
from alignment_core.reports import DatasetProblem, RowProblem

ROWS_LISTED = 100
OWN_MESSAGES = 10_000  # of a kind; the rows after them have that of its first


@dataclass
class _Kind:
    severity: Severity
    message: str
    rows: set[int] = field(default_factory=set)
    reasons: dict[int, str] = field(default_factory=dict)
    messages: dict[int, str] = field(default_factory=dict)  # those that differ from `message`
    count: int | None = None

    def tell(self, row: int, message: str) -> None:
        """Keep a row's own message, the first one of it."""
        if len(self.messages) < OWN_MESSAGES:
            self.messages.setdefault(row, message)


class Problems:
    """Kinds of problems in the order in which they were first met; a row counts once a kind."""

    def __init__(self) -> None:
        self._kinds: dict[str, _Kind] = {}

    def add(self, code: str, severity: Severity, row: int, message: str) -> None:
        """A problem of one row. The message of the kind's first row is the one that is kept."""
        kind = self._kinds.setdefault(code, _Kind(severity, message))
        kind.rows.add(row)
        if message != kind.message:
            kind.tell(row, message)

    def add_bad(self, row: BadRow) -> None:
        """A row that cannot be used; its own reason is kept beside that of the first."""
        self.add(row.code, row.severity, row.number, f"first in row {row.number}: {row.message}")
        kind = self._kinds[row.code]
        kind.messages.pop(row.number, None)
        kind.tell(row.number, row.message)
        if len(kind.reasons) < ROWS_LISTED:
            kind.reasons[row.number] = row.message

    def add_overall(self, code: str, severity: Severity, count: int, message: str) -> None:
        """A problem of the dataset as a whole, which concerns `count` rows."""
        self._kinds[code] = _Kind(severity, message, count=count)

    def names(self, row: int) -> bool:
        """Whether the report names a row that was the last to be added: it is among the first of some kind."""
        return any(row in kind.rows and len(kind.rows) <= ROWS_LISTED for kind in self._kinds.values())

    def notes_of(self, row: int) -> list[RowNote]:
        """What is wrong with one row, errors first."""
        found = [
            RowNote(code=code, severity=kind.severity, message=kind.messages.get(row, kind.message))
            for code, kind in self._kinds.items()
            if row in kind.rows
        ]
        return sorted(found, key=lambda note: note.severity != "error")

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
