"""Who won, in the words of whoever wrote it down: `a`, `left`, `image_0`, the name of the column, or of the file."""

from collections.abc import Mapping

from alignment_core.datasets.rows import TIE
from alignment_core.datasets.values import shown
from alignment_core.errors import DataError

FIRST = frozenset({"a", "first", "left", "image_0", "image_a", "image a"})
SECOND = frozenset({"b", "second", "right", "image_1", "image_b", "image b"})
TIES = frozenset({"tie", "both", "equal", "draw", "same", "neither", "none"})


def label_of_winner(winner: object, values: Mapping[str, object], names: Mapping[str, str]) -> float | None:
    """1 when the first image won, 0 when the second did, 0.5 for a tie, None for an empty cell.

    A bare number means an image only when the columns' names end so (`image1`, `image2`): 1 may be the first of 1 and 2 or
    the second of 0 and 1. Raises `DataError("invalid_label")`.
    """
    if winner is None or winner == "":
        return None
    name = _text(winner)
    first, second = (_words_of(role, values, names) for role in ("image_0", "image_1"))
    if name in first - second:
        return 1.0
    if name in second - first:
        return 0.0
    if name in TIES:
        return TIE
    if name in FIRST | SECOND:
        return float(name in FIRST)
    expected = sorted({names["image_0"], names["image_1"], *_endings(names).values(), "a", "b", "left", "right", "tie"})
    raise DataError("invalid_label", f"{names['winner']} is {shown(winner)}; expected one of {', '.join(expected)}")


def _words_of(role: str, values: Mapping[str, object], names: Mapping[str, str]) -> set[str]:
    """What points at the image of one column alone: the column's name, how it differs from the other's, the file."""
    words = {names[role].lower(), _endings(names)[role].lower()}
    if isinstance(value := values.get(role), str):
        words |= {value.lower(), value.rpartition("/")[2].lower()}
    return words - {""}


def _endings(names: Mapping[str, str]) -> dict[str, str]:
    """Where the two names differ: `1` and `2` of `image1` and `image2`."""
    first, second = names["image_0"], names["image_1"]
    start = _num_common(first, second)
    if not start:
        return {"image_0": first, "image_1": second}
    end = _num_common(first[start:][::-1], second[start:][::-1])
    return {"image_0": first[start : len(first) - end], "image_1": second[start : len(second) - end]}


def _num_common(first: str, second: str) -> int:
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _text(winner: object) -> str:
    if isinstance(winner, float) and winner.is_integer():
        winner = int(winner)
    return str(winner).strip().lower() if isinstance(winner, str | int) and not isinstance(winner, bool) else ""
