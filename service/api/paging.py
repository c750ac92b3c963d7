"""Lists: `?after=&limit=` in, one page and a `Link` header out. No offsets, so a list that grows skips nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from service.api.context import PartsDep
from service.api.schemas.base import Entry
from service.errors import ApiError, FieldProblem, invalid_request

T = TypeVar("T", bound=Entry)


class Page(BaseModel, Generic[T]):
    """A page of a list, newest first unless the operation says otherwise."""

    model_config = ConfigDict(extra="forbid")

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = Field(description="Whether the list goes on; ask again with `after` set to `last_id`.")
    first_id: str | None = Field(description="Id of the first entry of this page; null when the page is empty.")
    last_id: str | None = Field(description="Id of the last entry of this page; null when the page is empty.")


@dataclass(frozen=True)
class Paging:
    """Where the page that was asked for begins and how long it may be."""

    after: str | None
    limit: int
    _request: Request
    _response: Response
    _base_url: str

    def page(self, data: Sequence[T], *, has_more: bool) -> Page[T]:
        """The page, with a `Link` (RFC 8288) to the next one that keeps the other parameters."""
        if has_more:
            url = self._request.url.include_query_params(after=data[-1].id)
            self._response.headers["Link"] = f'<{self._base_url}{url.path}?{url.query}>; rel="next"'
        first_id, last_id = (data[0].id, data[-1].id) if data else (None, None)
        return Page(data=list(data), has_more=has_more, first_id=first_id, last_id=last_id)

    def slice(self, items: Sequence[T]) -> Page[T]:
        """The page of a list that is short enough to be held whole; 422 for an `after` that is not in it."""
        ids = [item.id for item in items]
        if self.after is not None and self.after not in ids:
            raise self.no_entry()
        start = 0 if self.after is None else ids.index(self.after) + 1
        return self.page(items[start : start + self.limit], has_more=start + self.limit < len(items))

    def no_entry(self) -> ApiError:
        """422 for an `after` that is not in the list."""
        message = f"there is no entry {self.after!r} in this list"
        return invalid_request([FieldProblem(pointer="query:after", code="entry_not_found", message=message)])


def _paging(
    request: Request,
    response: Response,
    parts: PartsDep,
    after: Annotated[
        str | None,
        Query(max_length=128, pattern=r"^[A-Za-z0-9_-]+$", description="Id of the last entry of the page before."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="Entries on a page, at most.")] = 20,
) -> Paging:
    most = parts.settings.max_list_limit
    if limit > most:
        message = f"this server's pages hold at most {most} entries"
        raise invalid_request([FieldProblem(pointer="query:limit", code="less_than_equal", message=message)])
    return Paging(after, limit, request, response, parts.base_url)


PagingDep = Annotated[Paging, Depends(_paging)]
NewestFirst = Annotated[
    bool, Query(description="The other way round; the page after `after` is then the one before it.")
]
