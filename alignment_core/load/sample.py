"""Some rows of a data set in place of all: what a run is tried on before all of them are encoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from alignment_core.datasets.shelf import Shelves

Row = TypeVar("Row")


@dataclass(frozen=True)
class Sample:
    """`num_rows` rows, encoded into `folder`: in the cache, images of a batch of their own would have bits of their own."""

    num_rows: int
    folder: Path

    @property
    def shelves(self) -> Shelves:
        return Shelves(self.folder)

    def of(self, rows: Sequence[Row]) -> Sequence[Row]:
        """The first rows."""
        return rows[: self.num_rows]

    def of_classes(self, *classes: Sequence[Row]) -> Sequence[Row]:
        """The first rows of each class, as many of one as of another where there are so many."""
        return [row for rows in classes for row in rows[: -(-self.num_rows // len(classes))]]
