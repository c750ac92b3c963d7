"""Every page there is, found by the routes of `service/web`: one that is added is looked at without anybody's doing."""

import importlib
import pkgutil
from collections.abc import Iterator

from fastapi.routing import APIRoute

import service.web
from tests.browser.site import Site

BESIDES = ("/?status=failed", "/jobs/new?method=tailorpo", "/no-such-page")


def paths(site: Site) -> list[str]:
    """An address of each page, with ids of what there is; pages that must be told more are told it here."""
    queries = {"/compare": f"?job={site.finished}&job={site.running}"}
    found = [path.format(**site.ids) + queries.get(path, "") for path in routes() if path != "/sign-in"]
    assert len(found) >= 7, found
    some_rows = f"/datasets/{site.dataset}?problem=contradictory_pairs&row=2"
    return [
        *found,
        some_rows,
        f"/playground/{site.played}",
        f"/jobs/{site.running}",
        f"/jobs/{site.failed}",
        *BESIDES,
        f"{site.keyed_address}/sign-in",
    ]


def routes(method: str = "GET") -> Iterator[str]:
    """The paths of all pages, with the names of what stands in them."""
    for module in pkgutil.iter_modules(service.web.__path__, "service.web."):
        router = getattr(importlib.import_module(module.name), "router", None)
        for route in router.routes if router else ():
            if (
                isinstance(route, APIRoute)
                and method in (route.methods or ())
                and not route.path.startswith("/static/")
            ):
                yield route.path
