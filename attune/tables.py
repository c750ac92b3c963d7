"""Lists for a terminal of 80 columns: no frame, ids whole, what is long last."""

from datetime import UTC, datetime

from rich.box import SIMPLE_HEAD
from rich.table import Column, Table

from attune.resources.jobs import Progress

ID_CHARACTERS = 26  # of what follows the prefix
UNITS = ("B", "kB", "MB", "GB", "TB")
AGES = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def listing(*columns: Column | str) -> Table:
    """An empty table; the last column gets what width is left, and cuts what does not fit."""
    *first, last = (Column(one) if isinstance(one, str) else one for one in columns)
    for column in first:
        column.no_wrap = True
    if last.overflow == "ellipsis":
        last.no_wrap = True
    return Table(*first, last, box=SIMPLE_HEAD, pad_edge=False, show_edge=False)


def id_column(prefix: str) -> Column:
    """Ids are never cut: a part of one is of no use to the next command."""
    return Column("id", no_wrap=True, min_width=len(f"{prefix}_") + ID_CHARACTERS)


def age_of(time: datetime) -> str:
    """`3 h ago`, in the largest unit of which there is a whole one."""
    seconds = max(0, int((datetime.now(UTC) - time).total_seconds()))
    size, unit = next(((size, unit) for size, unit in AGES if seconds >= size), AGES[-1])
    return f"{seconds // size} {unit} ago"


def bytes_of(size: int | None) -> str:
    """`3.8 MB`; nothing for what is not known."""
    if size is None:
        return ""
    value, unit = float(size), 0
    while value >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{size} B" if unit == 0 else f"{value:.1f} {UNITS[unit]}"


def memory_of(gib: float) -> str:
    """`15.2 MiB`, `2.10 GiB`: in the unit in which it is no fraction of one."""
    return f"{gib:.2f} GiB" if gib >= 1 else f"{1024 * gib:.1f} MiB"


def steps_of(progress: Progress) -> str:
    return f"{progress.step}/{progress.total or '?'}"
