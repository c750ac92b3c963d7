"""Models: the project's champions with what earned each its name, those of the catalog, and how names have moved."""

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Query, Response

from service.web.asking import ApiDep
from service.web.contender_choices import value_of
from service.web.rendering import PagesDep
from service.web.sign_in import Csrf, refuse_other_sites

MOVES_AT_ONCE, MOST_NAMES = 25, 100

router = APIRouter(include_in_schema=False)


@router.get("/models")
async def show_models(
    pages: PagesDep,
    api: ApiDep,
    alias: Annotated[str, Query(max_length=100, description="Only the history of this name.")] = "",
    after: str = "",
) -> Response:
    """Names with their proofs, models to begin with, and the history, newest first."""
    models = (await api.get("/v1/models"))["data"]
    return await pages.show(
        "models.html",
        catalog=[one for one in models if one["checkpoint_id"] is None],
        about={one["id"]: one for one in models},
        aliases=[
            {**one, "value": value_of(one["source"])}
            for one in (await api.get("/v1/aliases", limit=MOST_NAMES))["data"]
        ],
        promotions=await api.get("/v1/promotions", alias=alias, after=after, limit=MOVES_AT_ONCE),
        chosen=alias,
        after=after,
    )


@router.post("/models", dependencies=[Depends(refuse_other_sites)])
async def make_champion(
    pages: PagesDep, api: ApiDep, checkpoint_id: Annotated[str, Form(max_length=100)], csrf: Csrf = ""
) -> Response:
    """Point the champion's name at a checkpoint whose report shows that it is better; then what it stands for now."""
    await api.post("/v1/promotions", csrf, json={"checkpoint_id": checkpoint_id})
    return pages.go_to("/models")
