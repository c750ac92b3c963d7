"""The rows of a data set over HTTP, as people browse them."""

from typing import Any, Literal

from pydantic import Field

from alignment_core.browsing import BrowsedRow, ImageSide, RowNote
from service.api.schemas.base import Entry, Resource, with_example
from service.api.schemas.job_examples import DATASET_ID

PAIR_EXAMPLE: dict[str, Any] = {
    "id": "1312",
    "object": "pair",
    "row": 1312,
    "is_usable": True,
    "prompt": "a red circle on the left",
    "label": 1.0,
    "liked": None,
    "score": None,
    "group_id": "a red circle on the left",
    "swapped": False,
    "chosen": {"width": 32, "height": 32, "thumbnail_url": f"/v1/datasets/{DATASET_ID}/pairs/1312/chosen.jpg"},
    "rejected": {"width": 32, "height": 32, "thumbnail_url": f"/v1/datasets/{DATASET_ID}/pairs/1312/rejected.jpg"},
    "image": None,
    "problems": [
        {
            "code": "identical_images",
            "severity": "warning",
            "message": "chosen and rejected are the same file; nothing can be learnt",
        }
    ],
}


class PairImage(Resource):
    """One image of a row."""

    width: int = Field(description="Of the image in the data set, in pixels.")
    height: int
    thumbnail_url: str | None = Field(
        description="Where a small JPEG of it is; without a host it is on this server. The first 10,000 rows have one, and those "
        "that the report names; null elsewhere."
    )


class Pair(Entry):
    """A row of a data set: a prompt with its two images, or in a data set of single images with the one."""

    model_config = with_example(PAIR_EXAMPLE)

    id: str = Field(description="Its number in the data set, counted from 1.")
    object: Literal["pair"] = "pair"
    row: int
    is_usable: bool = Field(description="Whether it can be trained on.")
    prompt: str | None = Field(description="Null where the row could not be read.")
    label: float | None = Field(description="The probability that `chosen` is really preferred; 0.5 is a tie.")
    liked: bool | None = Field(description="Of a single image.")
    score: float | None
    group_id: str | None
    swapped: bool = Field(description="The file has the images the other way round, with a label below 0.5.")
    chosen: PairImage | None = Field(description="Null where the image could not be decoded, and for a single image.")
    rejected: PairImage | None
    image: PairImage | None = Field(description="In a data set of single images.")
    problems: list[RowNote] = Field(description="What the check says of this row, errors first.")

    @classmethod
    def of(cls, row: BrowsedRow, base_url: str, dataset_id: str) -> "Pair":
        def shown(side: ImageSide) -> PairImage | None:
            if (image := row.images.get(side)) is None:
                return None
            url = f"{base_url}/v1/datasets/{dataset_id}/pairs/{row.row}/{side}.jpg"
            return PairImage(
                width=image.width, height=image.height, thumbnail_url=None if image.thumbnail is None else url
            )

        values = row.model_dump(exclude={"images"})
        images = {"chosen": shown("chosen"), "rejected": shown("rejected"), "image": shown("image")}
        return cls.model_validate({"id": str(row.row), **values, **images})
