"""Lists: `?after=&limit=` in, one page and a `Link` header out. No offsets, so a list that grows skips nothing."""

from collections.abc import Sequence
from typing import Annotated, Generic, Literal, Protocol, TypeVar

from fastapi import Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field


class Identified(Protocol):
    @property
    def id(self) -> str: ...


T = TypeVar("T", bound=BaseModel)


class Page(BaseModel, Generic[T]):
    """A page of a list, newest first unless the operation says otherwise."""

    model_config = ConfigDict(extra="forbid")

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = Field(description="Whether the list goes on; ask again with `after` set to `last_id`.")
    first_id: str | None = Field(description="Id of the first entry of this page; null when the page is empty.")
    last_id: str | None = Field(description="Id of the last entry of this page; null when the page is empty.")


After = Annotated[
    str | None,
    Query(max_length=128, pattern=r"^[A-Za-z0-9_-]+$", description="Id of the last entry of the page before this one."),
]
Limit = Annotated[int, Query(ge=1, le=200, description="Entries on a page.")]


def link_next(request: Request, response: Response, last_id: str) -> None:
    """Point to the next page (RFC 8288), keeping the other parameters."""
    url = request.url.include_query_params(after=last_id)
    response.headers["Link"] = f'<{url.path}?{url.query}>; rel="next"'


def page_of(request: Request, response: Response, data: Sequence[T], ids: Sequence[str], *, has_more: bool) -> Page[T]:
    """Wrap one page; `ids` are those of `data`, in its order."""
    if has_more:
        link_next(request, response, ids[-1])
    return Page(data=list(data), has_more=has_more, first_id=next(iter(ids), None), last_id=ids[-1] if ids else None)
