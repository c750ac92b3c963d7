"""The playground: one prompt that one or two models draw before all jobs, where the operator has it open."""

from typing import Any

from fastapi import Response

from alignment_core.spec import CandidatesSpec
from service.api.contests import create_once
from service.api.context import Parts, PartsDep
from service.api.idempotency import IN_FLIGHT, OnceDep
from service.api.problems import problem, problems
from service.api.routers import api_router
from service.api.rows import LOCATION
from service.api.schemas.candidates import Candidates, CandidatesRequest
from service.api.schemas.playground import Playground, PlaygroundRequest
from service.auth import ProjectDep
from service.errors import ApiError, FieldProblem, invalid_request

router = api_router(prefix="/v1", tags=["labeling"], responses=problems(401, 403, 422, 500, 503))

LONGEST_NAME = 100

PLACES = {"/spec/prompts/0": "/prompt", "/spec/seeds/0": "/seed", "/spec": ""}
"""Where the body has what the candidates' spec has at a place."""


@router.get("/playground", summary="Ask whether there is a playground")
def get_playground(_project_id: ProjectDep, parts: PartsDep) -> Playground:
    """Whether `POST /v1/playground` draws on this server, and how long it may take."""
    return Playground(is_on=is_on(parts), max_run_seconds=parts.settings.playground_seconds)


@router.post(
    "/playground",
    status_code=201,
    response_model=Candidates,
    summary="Draw one prompt at once",
    response_description="Candidates of one or two images, before all jobs in the queue",
    responses={
        201: LOCATION,
        **IN_FLIGHT,
        **problem(403, "playground_off", "the playground of this server is off", when="The operator has it off"),
        **problems(400, 413, 429),
    },
)
def draw_at_once(body: PlaygroundRequest, project_id: ProjectDep, parts: PartsDep, once: OnceDep) -> Response:
    """Have one prompt drawn by one or two models from the same seed, as candidates that come before all jobs and may not take long.

    Where API keys are required it is off unless `ATTUNE_PLAYGROUND` says otherwise.
    """
    if not is_on(parts):
        raise ApiError(403, "playground_off", "the playground of this server is off: ATTUNE_PLAYGROUND=true opens it")
    spec = CandidatesSpec(
        contenders=_told_apart(body),
        prompts=(body.prompt,),
        seeds=(body.seed,),
        sampling=body.sampling,
        max_run_seconds=parts.settings.playground_seconds,
    )
    request = CandidatesRequest(spec=spec, name=_name_of(body.prompt), metadata={"made_by": "playground"})
    try:
        return create_once(parts, project_id, once, request, Candidates.whole, before_others=True)
    except ApiError as error:
        if error.code != "invalid_request":
            raise
        raise invalid_request(
            [one.model_copy(update={"pointer": _in_body(one.pointer)}) for one in error.errors]
        ) from error


def is_on(parts: Parts) -> bool:
    """The operator's word, and without it whether the server is its owner's alone."""
    asked = parts.settings.playground
    return not parts.settings.api_keys_required if asked is None else asked


def _name_of(prompt: str) -> str | None:
    """Its beginning on one line, by which it is found in lists."""
    return " ".join(prompt.split())[:LONGEST_NAME].strip() or None


def _told_apart(body: PlaygroundRequest) -> Any:
    names = [one.name for one in body.contenders]
    if len(set(names)) < len(names):
        message = f"two contenders are called {names[0]}: their images could not be told apart"
        raise invalid_request([FieldProblem(pointer="/contenders/1/name", code="value_error", message=message)])
    return body.contenders


def _in_body(pointer: str) -> str:
    """`/spec/contenders/0/model` of the candidates is `/contenders/0/model` of what was sent."""
    for place, there in PLACES.items():
        if pointer == place or pointer.startswith(f"{place}/"):
            return there + pointer.removeprefix(place)
    return pointer
