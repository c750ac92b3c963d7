"""The layouts of preference pairs: which of two images is better, said in any of the usual ways.

Roles: `chosen` and `rejected`, or `image_0` and `image_1` with a preference: `label` or `label_0` (probability that the first is
preferred), `winner`, `rank_0` and `rank_1` (1 is best), or `votes_0` and `votes_1` (counts or shares).
"""

from collections.abc import Mapping

from alignment_core.datasets.rows import Annotation, BadRow
from alignment_core.datasets.tables import Layout, TableRow, row_by_row
from alignment_core.datasets.values import annotate, shown
from alignment_core.datasets.winners import label_of_winner
from alignment_core.errors import DataError

MOST_VOTES = 1e300  # JSON can spell integers that no float holds
PREFERENCES = (("label",), ("label_0",), ("winner",), ("votes_0", "votes_1"), ("rank_0", "rank_1"))


def _chosen_and_rejected(row: TableRow, names: Mapping[str, str]) -> Annotation:
    values = row.values
    return annotate(
        row.number,
        prompt=values["prompt"],
        first=row.place("chosen", None),
        second=row.place("rejected", None),
        label=values.get("label"),
        score=values.get("score"),
        group_id=values.get("group_id"),
    )


def _first_and_second(row: TableRow, names: Mapping[str, str]) -> Annotation | BadRow:
    values = row.values
    if values.get("has_label") is False:
        return BadRow(
            row.number, "unlabeled_row", "warning", "has_label is false; nobody said which image is preferred"
        )
    if values.get("are_different") is False:
        return BadRow(
            row.number, "images_not_different", "warning", "are_different is false; the two images are the same"
        )
    label = _label_of_first(row, names)
    if label is None:
        return BadRow(row.number, "unlabeled_row", "warning", "nobody voted; nothing says which image is preferred")
    return annotate(
        row.number,
        prompt=values["prompt"],
        first=row.place("image_0", None),
        second=row.place("image_1", None),
        label=label,
        score=values.get("score"),
        group_id=values.get("group_id"),
    )


def _label_of_first(row: TableRow, names: Mapping[str, str]) -> object:
    """Probability that the first image is preferred; None when nobody said so."""
    values = row.values
    if "label" in names:
        return _given(values["label"], names["label"])
    if "label_0" in names:
        _check_other_label(values["label_0"], values.get("label_1"))
        return _given(values["label_0"], names["label_0"])
    if "winner" in names:
        return label_of_winner(values["winner"], values, names)
    if "votes_0" in names:
        first, second = (_number(values[role], names[role]) for role in ("votes_0", "votes_1"))
        return first / (first + second) if first + second else None
    first, second = (_number(values[role], names[role]) for role in ("rank_0", "rank_1"))
    return 0.5 if first == second else float(first < second)


def _given(label: object, name: str) -> object:
    if label is None:
        raise DataError("invalid_label", f"{name} is empty; expected 0, 0.5 or 1")
    return label


def _check_other_label(label_0: object, label_1: object) -> None:
    if not (isinstance(label_0, int | float) and isinstance(label_1, int | float)):
        return
    if abs(label_0 + label_1 - 1) > 1e-3:
        raise DataError("invalid_label", f"label_0 is {label_0} and label_1 is {label_1}; expected a sum of 1")


def _number(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_VOTES:
        raise DataError("invalid_label", f"{name} is {shown(value)}; expected a number of at least 0")
    return float(value)


CHOSEN_AND_REJECTED = Layout[Annotation](
    kind="pairs",
    images=("chosen", "rejected"),
    required=("prompt",),
    optional=("label", "score", "group_id"),
    annotations=row_by_row(_chosen_and_rejected),
)
FIRST_AND_SECOND = Layout[Annotation](
    kind="pairs",
    images=("image_0", "image_1"),
    required=("prompt",),
    optional=("label_1", "has_label", "are_different", "score", "group_id"),
    annotations=row_by_row(_first_and_second),
    preferences=PREFERENCES,
    has_first_image=True,
)
