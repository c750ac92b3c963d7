"""Delete: what a page shows, for good, by the API's own verb; then the list that it stood in."""

from fastapi import APIRouter, Depends, Response

from service.cookies import CSRF_HEADER
from service.web.asking import ApiDep, part
from service.web.rendering import PagesDep
from service.web.sign_in import Csrf, refuse_other_sites
from service.web.things import THINGS, Kind

router = APIRouter(include_in_schema=False)


@router.post("/delete/{kind}/{thing_id}", dependencies=[Depends(refuse_other_sites)])
async def delete(pages: PagesDep, api: ApiDep, kind: Kind, thing_id: str, csrf: Csrf = "") -> Response:
    """What still needs it is told on a page of its own: the API refuses."""
    thing = THINGS[kind]
    await api.send("DELETE", f"{thing.stored_at}/{part(thing_id)}", {CSRF_HEADER: csrf})
    return pages.go_to(thing.listed_at)
