"""Numbers and times as people read them: the filters of the templates."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from alignment_core.spec.counted import counted

MINUS = "\N{MINUS SIGN}"
LONGEST = 200  # letters of a text in a table
UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def duration(seconds: float | None) -> str:
    """The two largest units: `1 h 12 min`."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{seconds:.1f} s"
    left, parts = round(seconds), []
    for size, unit in UNITS:
        if left >= size or (parts and unit != "s"):
            parts.append(f"{left // size} {unit}")
            left %= size
        if len(parts) == 2:
            break
    return " ".join(part for part in parts if not part.startswith("0 "))


def size(num_bytes: float | None) -> str:
    """In powers of 1024, as disks are counted here."""
    if num_bytes is None:
        return ""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return counted(round(num_bytes), "byte") if unit == "bytes" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} TiB"


def gib(value: float | None) -> str:
    """GiB, in the unit in which they are no fraction of one."""
    return "" if value is None else size(value * 2**30)


def moment(time: str | None) -> str:
    """To the minute, in UTC."""
    return "" if time is None else datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M")


def signed(value: float | None) -> str:
    """Three digits that count, with a sign, and a real minus."""
    return "" if value is None else f"{value:+.3g}".replace("-", MINUS)


def number(value: Any) -> str:
    """Four digits that count; whatever is no number stays."""
    return f"{value:,.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def ahead(number: int) -> str:
    """Of who waits in a line."""
    return f"{number:,} ahead" if number else "next in line"


def spaced(name: str) -> str:
    return name.replace("_", " ")


def in_words(data: Mapping[str, Any]) -> str:
    """What an event says, but for its type and time and for what is no single value: `phase evaluating, step 9`."""
    left_out = ("type", "time")
    short = {name: one for name, one in data.items() if name not in left_out and isinstance(one, str | int | float)}
    return ", ".join(f"{spaced(name)} {_in_a_word(value)}" for name, value in short.items())


def _in_a_word(value: str | float) -> str:
    text = ("yes" if value else "no") if isinstance(value, bool) else number(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def field_id(pointer: str) -> str:
    """Of the control that a JSON pointer leads to; an item of a list is in the control of its list."""
    parts = pointer.split("/")[1:]
    while parts and parts[-1].isdecimal():
        parts.pop()
    return "-".join(("field", *parts))


FILTERS: dict[str, Callable[..., str]] = {
    "duration": duration,
    "size": size,
    "gib": gib,
    "counted": counted,
    "moment": moment,
    "signed": signed,
    "number": number,
    "ahead": ahead,
    "spaced": spaced,
    "field_id": field_id,
    "in_words": in_words,
}
