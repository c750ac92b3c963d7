"""Aliases of a project's checkpoints: promote one, see what names there are and how they came by what they point at."""

from typing import Annotated

from fastapi import Path, Query, Response

from alignment_core.spec.sources import NAME, Name
from service.api.context import Parts, PartsDep
from service.api.idempotency import IN_FLIGHT, OnceDep
from service.api.paging import Page, PagingDep
from service.api.problems import missing, problem, problems
from service.api.routers import api_router
from service.api.schemas.aliases import Alias, Promotion, PromotionRequest
from service.api.schemas.deleted import Deleted
from service.auth import ProjectDep
from service.errors import ApiError, FieldProblem, invalid_request, not_found
from service.store import aliases
from service.store.ids import is_id
from service.store.promotion_proofs import EvaluationMissing, Unproven

router = api_router(prefix="/v1", tags=["aliases"], responses=problems(401, 403, 422, 500, 503))

LOCATION = {"headers": {"Location": {"description": "Where the promotion is.", "schema": {"type": "string"}}}}
AliasPath = Annotated[str, Path(pattern=NAME, description="Name of an alias.", examples=["champion"])]
ALIAS_MISSING = problem(
    404, "alias_not_found", "there is no alias 'champion' in this project", when="No such alias in this project"
)


@router.post(
    "/promotions",
    status_code=201,
    response_model=Promotion,
    summary="Promote a checkpoint",
    response_description="What moved, with the proof that earned it",
    responses={
        201: LOCATION,
        **missing("checkpoint", "ckpt"),
        **IN_FLIGHT,
        **problem(
            409,
            "promotion_unproven",
            "its gain in colorfulness is +0.01 (-0.02 to +0.04), which does not show that it is better",
            when="No report shows that the checkpoint is better, or the name is new and the project has as many as it may",
        ),
        **problems(400, 413),
    },
)
def create_promotion(body: PromotionRequest, project_id: ProjectDep, parts: PartsDep, once: OnceDep) -> Response:
    """Point `champion`, or another name, at a checkpoint; jobs may then name it as their model: `"model": "@champion"`.

    The job's report on this very checkpoint has to show that it is better than what it was trained from: the interval of the
    primary reward's gain lies above zero. So may the report of an evaluation, `evaluation_id`, in which it competes against what the name points
    at now, or against what it was trained from; of more than two contenders Holm's corrected p-value has to agree. `force` promotes without, and its `reason` stays in the history. `candidate` may point at any
    checkpoint: it is what is still to be proven.
    """
    if body.force and body.reason is None:
        message = "say why: it stands in the history of the name"
        raise invalid_request([FieldProblem(pointer="/reason", code="missing", message=message)])
    return once(
        "prm",
        "/v1/promotions",
        body.model_dump(mode="json"),
        lambda promotion_id: _promoted(parts, project_id, body, promotion_id),
    )


def _promoted(parts: Parts, project_id: str, body: PromotionRequest, promotion_id: str | None) -> Promotion:
    try:
        made = aliases.promote(
            parts.store,
            project_id=project_id,
            alias=body.alias,
            checkpoint_id=body.checkpoint_id,
            evaluation_id=body.evaluation_id,
            force=body.force,
            reason=body.reason,
            promotion_id=promotion_id,
            most=parts.settings.aliases_per_project,
        )
    except aliases.TooMany as error:
        most = parts.settings.aliases_per_project
        detail = f"this project has {most} aliases, the most that it may; delete one that nobody names any more"
        raise ApiError(409, "too_many_aliases", detail) from error
    except EvaluationMissing as error:
        raise not_found("evaluation", str(error)) from error
    except Unproven as error:
        detail = f"{body.checkpoint_id} cannot be promoted: {error}. Evaluate it, or say `force` and a `reason`"
        raise ApiError(409, "promotion_unproven", detail) from error
    if made is None:
        raise not_found("checkpoint", body.checkpoint_id)
    return Promotion.of(made)


@router.get("/promotions", summary="Read the history of aliases")
def list_promotions(
    project_id: ProjectDep,
    parts: PartsDep,
    paging: PagingDep,
    alias: Annotated[Name | None, Query(description="Only of this name.")] = None,
) -> Page[Promotion]:
    """What each name pointed at and when, newest first, with the proof of that time; deleted checkpoints stay in it."""
    page = aliases.list_promotions(parts.store, project_id, alias=alias, after_id=paging.after, limit=paging.limit)
    return paging.page([Promotion.of(one) for one in page.data], has_more=page.has_more)


@router.get("/promotions/{promotion_id}", summary="Look at a promotion", responses=missing("promotion", "prm"))
def get_promotion(
    promotion_id: Annotated[str, Path(description="Id of a promotion.", examples=["prm_01kaf0q2s4u6w8y0a2c4e6g8j0"])],
    project_id: ProjectDep,
    parts: PartsDep,
) -> Promotion:
    """Which name moved onto which checkpoint, and why it could."""
    found = aliases.get_promotion(parts.store, project_id, promotion_id) if is_id(promotion_id) else None
    if found is None:
        raise not_found("promotion", promotion_id)
    return Promotion.of(found)


@router.get("/aliases", summary="List aliases")
def list_aliases(project_id: ProjectDep, parts: PartsDep, paging: PagingDep) -> Page[Alias]:
    """The project's names for checkpoints, in their order."""
    return paging.slice([Alias.of(one) for one in aliases.list_aliases(parts.store, project_id)])


@router.get("/aliases/{alias}", summary="Look at an alias", responses=ALIAS_MISSING)
def get_alias(alias: AliasPath, project_id: ProjectDep, parts: PartsDep) -> Alias:
    """What the name points at, with the report that earned it."""
    found = aliases.get(parts.store, project_id, alias)
    if found is None:
        raise not_found("alias", alias)
    return Alias.of(found)


@router.delete("/aliases/{alias}", summary="Take a name away", responses=ALIAS_MISSING)
def delete_alias(alias: AliasPath, project_id: ProjectDep, parts: PartsDep) -> Deleted:
    """The name points at nothing from then on; its history stays, and says so. The checkpoint stays too."""
    if aliases.retire(parts.store, project_id, alias) is None:
        raise not_found("alias", alias)
    return Deleted(id=alias, object="alias")
