"""Which pairs of images a labeling asks for, and in which order and on which side each person sees them: pure functions of a seed.

Nothing of an order is stored, so it is the same in every tab and after every restart.
"""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

Side = Literal["first", "second"]


@dataclass(frozen=True)
class Drawn:
    """An image as far as pairing goes."""

    id: str
    contender: str
    position: int
    number: int
    pixels_sha256: str


@dataclass(frozen=True)
class Question:
    """Two images of one prompt; `repeat_of` is the number of the question that it asks a second time."""

    number: int
    first_id: str
    second_id: str
    repeat_of: int | None = None


def questions_of(
    images: Sequence[Drawn], *, num_pairs: int, repeated: float, seed: int, between: tuple[str, str] | None
) -> list[Question]:
    """At most `num_pairs` pairs, as many of each prompt as can be, and a share of them again; pairs of equal images are left out.

    `between` two contenders the images of a pair have prompt and seed in common, and `first` is the first one's.
    """
    by_prompt: dict[int, list[Drawn]] = {}
    for one in images:
        by_prompt.setdefault(one.position, []).append(one)
    each = [_pairs(by_prompt[position], num_pairs, _random(seed, position), between) for position in sorted(by_prompt)]
    in_turn = [pair for row in zip_longest(*each) for pair in row if pair is not None]
    pairs = in_turn[:num_pairs]
    asked = [Question(number, a.id, b.id) for number, (a, b) in enumerate(pairs)]
    again = _random(seed, "repeated").sample(asked, round(repeated * len(asked)))
    return asked + [
        Question(len(asked) + number, one.first_id, one.second_id, one.number)
        for number, one in enumerate(sorted(again, key=lambda one: one.number))
    ]


def _pairs(
    images: list[Drawn], most: int, draw: random.Random, between: tuple[str, str] | None
) -> list[tuple[Drawn, Drawn]]:
    if between is not None:
        first, second = ({one.number: one for one in images if one.contender == name} for name in between)
        pairs = [(first[number], second[number]) for number in sorted(first.keys() & second.keys())]
        draw.shuffle(pairs)
    else:
        total = len(images) * (len(images) - 1) // 2
        pairs = [(images[a], images[b]) for a, b in map(_unranked, draw.sample(range(total), min(total, 2 * most)))]
    return [(a, b) for a, b in pairs if a.pixels_sha256 != b.pixels_sha256]


def _unranked(rank: int) -> tuple[int, int]:
    """The pair `a < b` of this place among all: 01, 02, 12, 03, ..."""
    b = int((1 + (1 + 8 * rank) ** 0.5) / 2)
    while b * (b - 1) // 2 > rank:
        b -= 1
    while (b + 1) * b // 2 <= rank:
        b += 1
    return rank - b * (b - 1) // 2, b


def order_of(questions: Sequence[Question], seed: int, annotator: str) -> list[Question]:
    """The order in which somebody sees them: their own, a repeat always after what it repeats and some way from it."""
    place: dict[int, float] = {}
    for one in questions:
        drawn = _share(seed, annotator, "order", one.number)
        before = None if one.repeat_of is None else place[one.repeat_of]
        place[one.number] = drawn if before is None else before + (1.3 - before) * (0.3 + 0.7 * drawn)
    return sorted(questions, key=lambda one: place[one.number])


def left_of(seed: int, annotator: str, number: int) -> Side:
    """Which image somebody sees on the left."""
    return "first" if _share(seed, annotator, "left", number) < 0.5 else "second"


def _share(seed: int, *path: str | int) -> float:
    """A number in [0, 1) that the path names."""
    text = "/".join([str(seed), *map(str, path)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def _random(seed: int, *path: str | int) -> random.Random:
    text = "/".join([str(seed), *map(str, path)])
    return random.Random(int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big"))  # noqa: S311  no secret
