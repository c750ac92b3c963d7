"""What can be asked for: methods, models and rewards, with JSON Schema and what this server offers by name."""

import inspect
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel, TypeAdapter

from alignment_core.model_files import ModelReport
from alignment_core.spec import (
    FrozenReference,
    JobSpec,
    MethodSpec,
    ModelSpec,
    ReferenceSpec,
    RewardSpec,
    TimestepSpec,
)
from alignment_core.spec.families import FAMILIES, served
from alignment_core.spec.method import MethodBase
from alignment_core.spec.sources import label_of
from service.api.context import Parts, PartsDep
from service.api.examples import STABLE_DIFFUSION, example_of
from service.api.model_reports import family_of, foreseen, report_of
from service.api.paging import Page
from service.api.problems import problems
from service.api.prospects import resolution_of
from service.api.routers import api_router
from service.api.schemas.catalog import CatalogEntry, CatalogModel, Method, ModelList, PlugIn, Reward
from service.auth import ProjectDep
from service.store import aliases, jobs
from service.store.catalog import CatalogEntry as Entry

router = api_router(prefix="/v1", tags=["catalog"], responses=problems(401, 422, 500, 503))


def members(union: Any) -> list[type[BaseModel]]:
    """The classes of a union that is discriminated by `type`, or the one class where there is no choice yet."""
    if isinstance(union, type):
        return [union]
    (choices, *_) = get_args(union)
    return list(get_args(choices))


def _type_of(member: type[BaseModel]) -> str:
    return member.model_fields["type"].default


def _plug_ins(union: Any) -> list[PlugIn]:
    return [
        PlugIn(type=_type_of(member), description=inspect.getdoc(member) or "", json_schema=member.model_json_schema())
        for member in members(union)
    ]


def _references_of(method: type[BaseModel]) -> Any:
    assert issubclass(method, MethodBase), "every member of the union answers for itself"
    return ReferenceSpec if method.has_reference else FrozenReference


@router.get("/methods", summary="List alignment methods")
def list_methods(_project_id: ProjectDep, parts: PartsDep) -> Page[Method]:
    """The values of `spec.method.type`, each with its paper, its parameters, their ranges and their defaults, and with what
    may stand beside it: how the reference moves, where there is one, and which timesteps count how much. Each has an example
    that runs as it stands, once the id of a dataset is put in where it has one. What follows from the model's family (`docs/methods.md`,
    defaults by family) is in the resolved spec that `POST /v1/jobs/validate` answers, and values that are far from what the family
    was published with are among its warnings."""
    trained = [name for name, model in sorted(parts.catalog.models.items()) if model.family in served()]
    data = _methods(trained[0] if trained else None)
    return Page(data=data, has_more=False, first_id=data[0].id, last_id=data[-1].id)


@cache
def _methods(model_name: str | None) -> list[Method]:
    """Every method with an example on this model: made once, since schemas take a tenth of a second."""
    model = STABLE_DIFFUSION if model_name is None else {"type": "catalog", "name": model_name}
    return [
        Method(
            id=_type_of(member),
            description=inspect.getdoc(member) or "",
            json_schema=member.model_json_schema(),
            references=_plug_ins(_references_of(member)),
            timesteps=_plug_ins(TimestepSpec),
            example=example_of(member, model),
        )
        for member in members(MethodSpec)
    ]


@router.get("/models", summary="List models")
def list_models(project_id: ProjectDep, parts: PartsDep) -> ModelList:
    """The models that this server offers by name, with what their files say once a worker has read them, the project's champions
    and other aliases, and the other sources that `spec.model` may name."""
    offered = [_model(parts, name, entry) for name, entry in sorted(parts.catalog.models.items())]
    data = [*offered, *_promoted(parts, project_id)]
    return ModelList(
        data=data,
        first_id=data[0].id if data else None,
        last_id=data[-1].id if data else None,
        sources=["catalog", "hub", "checkpoint", "alias", *(["local"] if parts.settings.allow_local_paths else [])],
        json_schema=TypeAdapter(ModelSpec).json_schema(),
    )


def _model(parts: Parts, name: str, entry: Entry) -> CatalogModel:
    """What the operator wrote of the model, and what its files say where somebody has read them."""
    is_trained = entry.family in served()
    read = report_of(parts, entry.source) if is_trained else None
    read = read or ModelReport()
    return CatalogModel(
        id=name,
        description=entry.description,
        family=entry.family,
        is_trained=is_trained,
        resolution=read.resolution or entry.resolution,
        pipeline_class=read.pipeline_class,
        prediction_type=read.prediction_type,
        num_parameters=read.num_parameters,
        lora_targets=None if read.layers is None else list(read.targets),
        default_lora_targets=None if entry.family == "clip" else list(FAMILIES[entry.family].lora_targets),
        problem=None if read.problem is None else read.problem.message,
        source={"type": "catalog", "name": name},
        checkpoint_id=None,
        recipes=entry.recipes,
    )


def _promoted(parts: Parts, project_id: str) -> Iterator[CatalogModel]:
    """Checkpoints that have a name, with what is known of the model that they were trained on."""
    for alias in aliases.list_aliases(parts.store, project_id):
        promotion = alias.promotion
        job = None if promotion.job_id is None else jobs.get(parts.store, project_id, promotion.job_id)
        if job is None or promotion.checkpoint_id is None:
            continue  # deleted just now
        spec = JobSpec.model_validate(job.spec)
        family, read = family_of(parts, project_id, spec), foreseen(parts, project_id, spec) or ModelReport()
        yield CatalogModel(
            id=f"@{alias.name}",
            description=f"step {promotion.step} of {job.name or job.id}, trained on {label_of(spec.model)}",
            family=family,
            is_trained=True,
            resolution=read.resolution or resolution_of(spec, parts.catalog, read),
            pipeline_class=read.pipeline_class,
            prediction_type=read.prediction_type,
            num_parameters=read.num_parameters,
            lora_targets=None if read.layers is None else list(read.targets),
            default_lora_targets=None if family is None else list(FAMILIES[family].lora_targets),
            problem=None,
            source={"type": "alias", "name": alias.name},
            checkpoint_id=promotion.checkpoint_id,
            recipes={},
        )


@cache
def _schema_of(member: type[BaseModel]) -> dict[str, Any]:
    """Made once, since those of all rewards take a twentieth of a second."""
    return member.model_json_schema()


@router.get("/rewards", summary="List rewards")
def list_rewards(_project_id: ProjectDep, parts: PartsDep) -> Page[Reward]:
    """The values of a reward's `type`, and the weights that this server offers for those that need some."""
    offered = sorted(parts.catalog.rewards.items())
    data = [
        Reward(
            id=_type_of(member),
            description=inspect.getdoc(member) or "",
            weights=[
                CatalogEntry(name=name, description=entry.description, judge_only=entry.judge_only)
                for name, entry in offered
                if entry.type == _type_of(member)
            ],
            json_schema=_schema_of(member),
        )
        for member in members(RewardSpec)
    ]
    return Page(data=data, has_more=False, first_id=data[0].id, last_id=data[-1].id)
