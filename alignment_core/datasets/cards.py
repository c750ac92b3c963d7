"""What people are shown of a row: made while the check has its images decoded, since nothing decodes them again.

The first 10,000 rows keep their thumbnails, and after them the rows that the report names.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from alignment_core.browsing import BrowsedRow, BrowsingWriter, ImageSide, RowImage, RowNote
from alignment_core.datasets.images import decode_image
from alignment_core.datasets.problems import Problems
from alignment_core.datasets.rows import BadRow, PreferenceRow
from alignment_core.datasets.unpaired import ImageRow

ROWS_SHOWN = 10_000
LONGER_SIDE = 160  # pixels
QUALITY = 80
SMALL_SIDE = 64  # of what is smaller no colour is left out: eight pixels of it are much of the picture


@dataclass
class Look:
    """The images of one row as they are decoded: their sizes, and where `shows` is set their thumbnails."""

    shows: bool
    images: dict[ImageSide, RowImage] = field(default_factory=dict)
    thumbnails: dict[ImageSide, bytes] = field(default_factory=dict)

    def at(self, side: ImageSide, data: bytes) -> tuple[int, int]:
        """Width and height of an image. Raises `DataError` for one that cannot be decoded."""
        image = decode_image(data)
        width, height = image.size
        if self.shows:
            self.images[side] = RowImage(width=width, height=height)
            self.thumbnails[side] = thumbnail_of(image)
        return width, height


@dataclass(frozen=True)
class Card:
    """A row and its thumbnails; what is wrong with it is not known yet."""

    row: BrowsedRow
    look: Look


def thumbnail_of(image: Image.Image) -> bytes:
    """A JPEG of `image`, an RGB one that is not needed any more, with a longer side of at most 160 pixels."""
    image.thumbnail((LONGER_SIDE, LONGER_SIDE), Image.Resampling.BILINEAR, reducing_gap=1.0)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling=0 if max(image.size) <= SMALL_SIDE else 2)
    return file.getvalue()


def card_of(row: PreferenceRow | ImageRow | BadRow, look: Look, *, is_usable: bool) -> Card:
    match row:
        case PreferenceRow():
            told = {"label": row.label, "score": row.score, "group_id": row.group_id, "swapped": row.swapped}
        case ImageRow():
            told = {"liked": row.liked, "group_id": row.group_id}
        case BadRow():
            return Card(BrowsedRow(row=row.number, is_usable=False), look)
    values = {"row": row.number, "prompt": row.prompt, "images": look.images, "is_usable": is_usable, **told}
    return Card(BrowsedRow.model_construct(**values), look)


class Album:
    """Cards as they come, into a file for people to browse."""

    def __init__(self, writer: BrowsingWriter, shown: Callable[[str], str]) -> None:
        """`shown` makes a message fit for others: with the user's name of the file in place of ours."""
        self._writer, self._shown, self._num_cards = writer, shown, 0

    def add(self, card: Card, problems: Problems) -> None:
        """One card, after the row was counted among `problems`."""
        self._num_cards += 1
        keeps = self._num_cards <= ROWS_SHOWN or problems.names(card.row.row)
        self._writer.add(card.row, card.look.thumbnails if keeps else {})

    def finish(self, problems: Problems) -> None:
        self._writer.finish(lambda number: self._notes(problems, number))

    def _notes(self, problems: Problems, number: int) -> list[RowNote]:
        return [one.model_copy(update={"message": self._shown(one.message)}) for one in problems.notes_of(number)]


def shown_as(path: Path, filename: str) -> Callable[[str], str]:
    """Replaces our name of the file, and where it lies, by its owner's."""
    return lambda message: message.replace(str(path), filename).replace(path.name, filename)
