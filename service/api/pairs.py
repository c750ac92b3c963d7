"""The rows of a data set, to browse: page by page, all of them or those with a problem, with small pictures."""

import hashlib
from collections.abc import Generator
from contextlib import contextmanager
from typing import Annotated

import structlog
from fastapi import Path, Query, Request, Response

from alignment_core.browsing import BrowsingReader, DamagedBrowsing, ImageSide
from service.api.context import Parts, PartsDep
from service.api.downloads import Body, file_responses, send_body
from service.api.lookup import DatasetDep
from service.api.paging import Page, PagingDep
from service.api.problems import problem, problems
from service.api.routers import api_router
from service.api.schemas.pairs import Pair
from service.auth import ProjectDep
from service.errors import ApiError
from service.store.records.uploads import DatasetRecord

log = structlog.get_logger()
router = api_router(prefix="/v1/datasets", tags=["datasets"], responses=problems(401, 403, 422, 500, 503))

NOTHING_TO_BROWSE = problem(
    404,
    "pairs_not_found",
    "data set 'ds_01kaf0f6a2c4e6g8j0m2p4r6t8' has no pairs to browse: it was checked before there were any; upload it again to have them",
    when="No such data set in this project, or it has not been checked, could not be read, or was checked by an earlier version",
)


@router.get("/{dataset_id}/pairs", summary="Browse a data set's pairs", responses=NOTHING_TO_BROWSE)
def list_pairs(
    dataset: DatasetDep,
    project_id: ProjectDep,
    parts: PartsDep,
    paging: PagingDep,
    problem: Annotated[
        str | None,
        Query(
            max_length=100,
            pattern=r"^[a-z0-9_]+$",
            description="Only the rows with this problem, by its `code` in the report, such as `duplicate_rows`.",
        ),
    ] = None,
) -> Page[Pair]:
    """The rows in their order, each with what the check says of it; the page after row 4000 is `?after=4000`.

    A page costs the same wherever it is. A problem of the data set as a whole has no rows. With a data set of single images, `image` stands
    in the place of `chosen` and `rejected`.
    """
    if paging.after is not None and not paging.after.isdecimal():
        raise paging.no_entry()
    with _undamaged(dataset):
        rows, has_more = _reader(parts, dataset).rows(problem, int(paging.after or 0), paging.limit)
    return paging.page([Pair.of(row, parts.base_url, dataset.id) for row in rows], has_more=has_more)


@router.get(
    "/{dataset_id}/pairs/{row}/{side}.jpg",
    response_class=Response,
    summary="Download a small picture of an image",
    responses=file_responses("image/jpeg", "thumbnail", "ds", redirects=False),
)
@router.head("/{dataset_id}/pairs/{row}/{side}.jpg", include_in_schema=False)
def get_thumbnail(
    request: Request,
    dataset: DatasetDep,
    project_id: ProjectDep,
    parts: PartsDep,
    row: Annotated[int, Path(ge=1, lt=2**31, description="Number of the row, from 1.", examples=[1312])],
    side: Annotated[ImageSide, Path(description="Which of its images; `image` in a data set of single ones.")],
) -> Response:
    """The image as a JPEG with a longer side of at most 160 pixels."""
    with _undamaged(dataset):
        reader = _reader(parts, dataset)
        found = reader.row(row)
        image = None if found is None else found.images.get(side)
        thumbnail = None if image is None else reader.thumbnail(image)
    if thumbnail is None:
        raise ApiError(404, "thumbnail_not_found", f"row {row} of data set {dataset.id!r} has no picture {side!r}")
    body = Body(len(thumbnail), hashlib.sha256(thumbnail).hexdigest(), lambda start, end: iter((thumbnail[start:end],)))
    return send_body(request, body, {"Content-Disposition": f'inline; filename="{row}-{side}.jpg"'}, "image/jpeg")


def _reader(parts: Parts, dataset: DatasetRecord) -> BrowsingReader:
    found = parts.browsed.reader(dataset)
    if found is None:
        raise ApiError(404, "pairs_not_found", f"data set {dataset.id!r} has no pairs to browse: {_why(dataset)}")
    return found


@contextmanager
def _undamaged(dataset: DatasetRecord) -> Generator[None]:
    """404 `pairs_damaged` where what is kept to be browsed is not as the check wrote it, which is logged."""
    try:
        yield
    except DamagedBrowsing as error:
        log.error("pairs_damaged", dataset_id=dataset.id, error=str(error))
        message = (
            f"the pairs of data set {dataset.id!r} cannot be browsed: what is kept of them is damaged; upload it again"
        )
        raise ApiError(404, "pairs_damaged", message) from error


def _why(dataset: DatasetRecord) -> str:
    if dataset.report is not None:
        return "it was checked before there were any; upload it again to have them"
    return f"it is {dataset.state}" if dataset.error is None else dataset.error.message
