"""The settings of a sweep: which fields of a spec take which values together. Pure data; the same search is the same points, in the same order."""

import copy
import itertools
import math
import random
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self, assert_never

from pydantic import AfterValidator, Field, JsonValue, StringConstraints, model_validator

from alignment_core.spec.base import Spec, misfit

MOST_TRIALS = 64
Path = Annotated[str, StringConstraints(max_length=200, pattern=r"^[a-z_0-9]+(\.[a-z_0-9]+)*$")]
Point = dict[str, JsonValue]


def _texts(value: JsonValue) -> Iterator[str]:
    match value:
        case str():
            yield value
        case list():
            for one in value:
                yield from _texts(one)
        case dict():
            for name, one in value.items():
                yield from (name, *_texts(one))


def _without_broken_text(value: JsonValue) -> JsonValue:
    """A value that is never drawn is no spec's, where such a text would be refused, and yet it is kept and shown."""
    if any("\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text) for text in _texts(value)):
        raise misfit("no text has the character NUL or half a surrogate pair")
    return value


Value = Annotated[JsonValue, AfterValidator(_without_broken_text)]
Values = Annotated[list[Value], Field(min_length=1)]


class Grid(Spec):
    """Every combination of the values; the last field varies fastest."""

    type: Literal["grid"] = "grid"
    axes: dict[Path, Values] = Field(
        min_length=1, max_length=8, description="Values by field, such as `training.learning_rate`."
    )

    @model_validator(mode="after")
    def _is_not_too_large(self) -> Self:
        if not 1 <= math.prod(map(len, self.axes.values())) <= MOST_TRIALS:
            raise misfit(f"a grid has 1 to {MOST_TRIALS} combinations: list or draw them if there are more", "axes")
        return self


class Listed(Spec):
    """These points and no others."""

    type: Literal["list"] = "list"
    points: list[dict[Path, Value]] = Field(min_length=1, max_length=MOST_TRIALS)


class Range(Spec):
    """A number between two, drawn evenly, or evenly in its logarithm."""

    low: float
    high: float
    log: bool = False

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise misfit("low must be below high, and above 0 where the logarithm is drawn", "low")
        return self

    def drawn(self, generator: random.Random) -> float:
        if not self.log:
            return generator.uniform(self.low, self.high)
        return math.exp(generator.uniform(math.log(self.low), math.log(self.high)))


class RandomPoints(Spec):
    """Points drawn at random; the same seed draws the same, and a larger `num` draws more of them."""

    type: Literal["random"] = "random"
    axes: dict[Path, Range | Values] = Field(
        min_length=1, max_length=8, description="By field a range, or values of which one is drawn."
    )
    num: int = Field(ge=1, le=MOST_TRIALS)
    seed: int = Field(default=0, ge=0, lt=2**63)


Search = Annotated[Grid | Listed | RandomPoints, Field(discriminator="type")]


def points_of(search: Grid | Listed | RandomPoints) -> list[Point]:
    match search:
        case Grid(axes=axes):
            return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]
        case Listed(points=points):
            return [dict(point) for point in points]
        case RandomPoints():
            return list(_drawn(search))
        case _:
            assert_never(search)


def _drawn(search: RandomPoints) -> Iterator[Point]:
    generator = random.Random(search.seed)  # noqa: S311  nothing is kept secret by it
    for _ in range(search.num):
        yield {
            path: one.drawn(generator) if isinstance(one, Range) else generator.choice(one)
            for path, one in search.axes.items()
        }


def with_point(spec: Mapping[str, Any], point: Point) -> dict[str, Any]:
    """A spec as JSON with the point's values in their places; `KeyError` names a place that it does not have."""
    found = copy.deepcopy(dict(spec))
    for path, value in point.items():
        *folders, name = path.split(".")
        place: Any = found
        for folder in folders:
            place = _entry(place, folder) if isinstance(place, list) else place.get(folder)
            if not isinstance(place, dict | list):
                raise KeyError(path)
        if isinstance(place, list) or name not in place:
            raise KeyError(path)
        place[name] = value
    return found


def _entry(entries: list[Any], number: str) -> Any:
    """The entry of this number, counted from 0; None where there is none."""
    return entries[int(number)] if number.isdecimal() and int(number) < len(entries) else None
