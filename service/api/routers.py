"""How the API's routers are made, and how an app takes their routes.

An app that *includes* a router makes every route anew, at the first request, with all the models of its body. The routes of these
routers are whole where they stand, and every app of a process takes the same ones.
"""

from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.params import Depends as Dependency

from service.api.context import refuse_unknown_parameters


def api_router(
    *,
    prefix: str = "",
    tags: list[str | Enum] | None = None,
    responses: dict[int | str, dict[str, Any]],
    dependencies: Sequence[Dependency] = (),
) -> APIRouter:
    """A router of the public API: it refuses parameters that it does not know, and its operations are named as their functions."""
    return APIRouter(
        prefix=prefix,
        tags=tags,
        responses=responses,
        dependencies=[Depends(refuse_unknown_parameters), *dependencies],
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their functions
    )


def take_routes(app: FastAPI, routers: Iterable[APIRouter]) -> None:
    """Have the app answer what these routers answer, in their order."""
    for router in routers:
        app.router.routes.extend(router.routes)
