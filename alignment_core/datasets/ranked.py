"""Ranks as pairs: of the images of a prompt, each is preferred to every one that is ranked below it.

As rows of one image each that stand together (ImageRewardDB), or as one row with lists of images and ranks (HPDv2). The
pairs are numbered from 1 in the order in which they come; images of the same rank make no pair.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, groupby

from alignment_core.datasets.rows import Annotation, BadRow
from alignment_core.datasets.tables import Layout, TableRow
from alignment_core.datasets.values import annotate, shown
from alignment_core.errors import DataError

WORST_RANK = 1e300  # JSON can spell integers that no float holds
MOST_IMAGES = 64  # of a prompt: they make 2016 pairs


@dataclass(frozen=True)
class _Ranked:
    row: int
    place: str
    rank: float


def _pairs_of_rows(rows: Iterable[TableRow | BadRow], names: Mapping[str, str]) -> Iterator[Annotation | BadRow]:
    number = 0
    for key, members in groupby(rows, key=_group_of):
        images, prompt = [], None
        for row in members:
            if isinstance(row, BadRow):
                number += 1
                yield BadRow(number, row.code, row.severity, row.message)
                continue
            prompt = row.values["prompt"]
            try:
                images.append(_Ranked(row.number, row.shared_place("image"), _rank(row.values["rank"])))
            except DataError as error:
                number += 1
                yield BadRow(number, error.code, "error", f"row {row.number} of the file: {error.message}")
        for found in _pairs(number, prompt, images, None if key is None else key[0], "rows"):
            number = found.number
            yield found


def _group_of(row: TableRow | BadRow) -> tuple[object, object] | None:
    if isinstance(row, BadRow):
        return None
    return row.values.get("group_id"), row.values["prompt"]


def _pairs_of_lists(rows: Iterable[TableRow | BadRow], names: Mapping[str, str]) -> Iterator[Annotation | BadRow]:
    number = 0
    for row in rows:
        if isinstance(row, BadRow):
            number += 1
            yield BadRow(number, row.code, row.severity, row.message)
            continue
        try:
            images = _of_lists(row, names)
        except DataError as error:
            number += 1
            yield BadRow(number, error.code, "error", f"row {row.number} of the file: {error.message}")
            continue
        for found in _pairs(number, row.values["prompt"], images, row.values.get("group_id"), "images"):
            number = found.number
            yield found


def _of_lists(row: TableRow, names: Mapping[str, str]) -> list[_Ranked]:
    """The images of a row. Of `preferences` the larger is better, of `ranks` the smaller."""
    images = _list(row.values["images"], names["images"])
    by_rank = row.values.get("ranks") is not None
    ranks = _list(row.values["ranks"] if by_rank else row.values.get("preferences"), "the preference")
    if len(images) != len(ranks):
        raise DataError("invalid_label", f"{len(images)} images and {len(ranks)} ranks; expected as many of each")
    sign = 1 if by_rank else -1
    return [_Ranked(row.number, row.place("images", i), sign * _rank(rank)) for i, rank in enumerate(ranks)]


def _pairs(
    number: int, prompt: object, images: Sequence[_Ranked], group_id: object, unit: str
) -> Iterator[Annotation | BadRow]:
    if len(images) > MOST_IMAGES:
        message = f"{len(images)} {unit} of one prompt; expected at most {MOST_IMAGES}"
        yield BadRow(number + 1, "too_many_ranked", "error", message)
        return
    for first, second in combinations(images, 2):
        if first.rank == second.rank:
            continue
        number += 1
        better, worse = sorted((first, second), key=lambda one: one.rank)
        try:
            yield annotate(number, prompt=prompt, first=better.place, second=worse.place, label=1.0, group_id=group_id)
        except DataError as error:
            yield BadRow(number, error.code, "error", f"row {first.row} of the file: {error.message}")


def _rank(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < WORST_RANK:
        raise DataError("invalid_label", f"rank is {shown(value)}; expected a number, 1 for the best")
    return float(value)


def _list(value: object, name: str) -> list[object]:
    if not isinstance(value, list):
        raise DataError("invalid_label", f"{name} is {shown(value)}; expected a list")
    return value


RANKED_ROWS = Layout[Annotation](
    kind="pairs",
    images=("image",),
    required=("prompt", "rank"),
    optional=("group_id",),
    annotations=_pairs_of_rows,
)
RANKED_LISTS = Layout[Annotation](
    kind="pairs",
    images=("images",),
    required=("prompt",),
    optional=("group_id",),
    annotations=_pairs_of_lists,
    preferences=(("ranks",), ("preferences",)),
)
