"""Single images that somebody liked or disliked: the rows of unpaired methods, and pairs read as such rows.

A row is `prompt`, `image`, `label` (1 liked, 0 disliked) and, if wanted, `group_id`. A preference pair is a like for what
was chosen and a dislike for what was rejected.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from alignment_core.datasets.bad_rows import row_error
from alignment_core.datasets.rows import Annotation, Source
from alignment_core.datasets.tables import Layout, TableRow, row_by_row
from alignment_core.datasets.values import checked_group_id, checked_prompt, shown
from alignment_core.errors import DataError


@dataclass(frozen=True, slots=True)
class ImageAnnotation:
    """A judged image without its bytes; `image` says where its source finds it, `column` what messages call it.

    `number` counts rows from 1 over all files of the dataset.
    """

    number: int
    prompt: str
    image: str
    liked: bool
    group_id: str
    column: str = "image"

    @property
    def places(self) -> tuple[str]:
        return (self.image,)

    @property
    def columns(self) -> tuple[str]:
        return (self.column,)

    def at(self, places: Sequence[str]) -> "ImageAnnotation":
        (image,) = places
        return replace(self, image=image)

    def with_images(self, images: Sequence[bytes]) -> "ImageRow":
        (image,) = images
        return ImageRow(self.number, self.prompt, image, self.liked, self.group_id, self.column)


@dataclass(frozen=True, slots=True)
class ImageRow:
    """A judged image with its encoded bytes; fields as in `ImageAnnotation`."""

    number: int
    prompt: str
    image: bytes
    liked: bool
    group_id: str
    column: str = "image"

    @property
    def columns(self) -> tuple[str]:
        return (self.column,)

    @property
    def images(self) -> tuple[bytes]:
        return (self.image,)


def annotate_image(
    number: int, *, prompt: object, image: str, label: object, group_id: object = None
) -> ImageAnnotation:
    """Check the values of a row. Raises `DataError` naming the column and what was expected."""
    text = checked_prompt(prompt)
    if label not in (0, 1) or not isinstance(label, bool | int | float):
        raise DataError("invalid_label", f"label is {shown(label)}; expected 1 (liked) or 0 (disliked)")
    return ImageAnnotation(number, text, image, bool(label), checked_group_id(group_id, text))


def _judged_image(row: TableRow, names: Mapping[str, str]) -> ImageAnnotation:
    values = row.values
    return annotate_image(
        row.number,
        prompt=values["prompt"],
        image=row.place("image", None),
        label=values["label"],
        group_id=values.get("group_id"),
    )


JUDGED_IMAGES = Layout[ImageAnnotation](
    kind="unpaired",
    images=("image",),
    required=("prompt", "label"),
    optional=("group_id",),
    annotations=row_by_row(_judged_image),
)


def read_judged_images(source: Source[ImageAnnotation], dropped: Collection[int] = ()) -> list[ImageAnnotation]:
    """The rows to train on, in order, without the `dropped` numbers.

    Raises `DataError` at the first row with an error, and `no_usable_rows` when nothing is left.
    """
    rows = []
    for row in source.annotations():
        if row.number in dropped:
            continue
        if isinstance(row, ImageAnnotation):
            rows.append(row)
        elif row.severity == "error":
            raise row_error(source, row)
    if not rows:
        raise DataError("no_usable_rows", f"{source.path.name}: no usable row; expected at least one")
    return rows


def images_of_pairs(rows: Iterable[Annotation]) -> list[ImageAnnotation]:
    """A like and a dislike for each pair, in order; whoever reads them reads the pairs' own source."""
    return [
        ImageAnnotation(row.number, row.prompt, image, liked, row.group_id, column)
        for row in rows
        for image, liked, column in ((row.chosen, True, "chosen"), (row.rejected, False, "rejected"))
    ]
