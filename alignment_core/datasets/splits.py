"""Training and validation rows, told apart by a hash of their group.

A row's side depends on the seed and its own group alone: not on the order of the rows, and (but for the guarantees below)
not on which other rows there are. So a group never straddles, and a dataset that grows keeps its split.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Grouped(Protocol):
    """What belongs to a group."""

    @property
    def group_id(self) -> str: ...


T = TypeVar("T", bound=Grouped)


@dataclass(frozen=True)
class Split(Generic[T]):
    """Rows of both sides, each in the order they were given."""

    train: list[T]
    validation: list[T]


def split_by_group(rows: Sequence[T], *, validation_fraction: float, seed: int) -> Split[T]:
    """Hold out about `validation_fraction` of the groups.

    Training gets at least one group. Validation is empty when the fraction is 0 or there is one group only, and gets at
    least one group otherwise. Raises `ValueError` for a fraction outside [0, 1).
    """
    if not 0 <= validation_fraction < 1:
        raise ValueError(f"validation_fraction is {validation_fraction}; expected a number in [0, 1)")
    held_out = _held_out({row.group_id for row in rows}, validation_fraction, seed)
    return Split(
        train=[row for row in rows if row.group_id not in held_out],
        validation=[row for row in rows if row.group_id in held_out],
    )


def _held_out(group_ids: set[str], fraction: float, seed: int) -> set[str]:
    if fraction == 0 or len(group_ids) < 2:
        return set()
    places = {group_id: _place(group_id, seed) for group_id in group_ids}
    held_out = {group_id for group_id, place in places.items() if place < fraction}
    order = sorted(group_ids, key=lambda group_id: (places[group_id], group_id))
    return (held_out | {order[0]}) - {order[-1]}


def _place(group_id: str, seed: int) -> float:
    """Uniform on [0, 1), by SHA-256 of the seed and the group."""
    digest = hashlib.sha256(f"{seed}/{group_id}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
