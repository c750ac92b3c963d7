"""Whether an evaluation, or candidates, would be taken, before anything is queued."""

from collections.abc import Iterator
from typing import Any, TypeVar

from pydantic import ValidationError

from alignment_core.spec import CandidatesSpec, Contest
from service.api.contenders import resolved_contenders
from service.api.context import Parts
from service.api.model_reports import unread
from service.api.proof_estimates import estimate_of_evaluation, problems_of_fit
from service.api.schemas.candidates import CandidatesRequest
from service.api.schemas.contests import ContestValidation
from service.api.schemas.evaluations import EvaluationRequest
from service.errors import ApiError, FieldProblem, field_problems, invalid_request

ContestRequest = EvaluationRequest | CandidatesRequest
AnyValidation = TypeVar("AnyValidation", bound=ContestValidation)


def admitted(parts: Parts, project_id: str, spec: Contest) -> Contest:
    """The spec as a worker runs it; raises 422 with everything that keeps this server from running it."""
    resolved = resolved_contenders(parts, project_id, spec)
    too_many = _problems_of_size(resolved, _most_images(parts, resolved))
    if unfit := [*too_many, *problems_of_fit(parts, project_id, resolved)]:
        raise invalid_request(unfit)
    return resolved


def _most_images(parts: Parts, spec: Contest) -> int:
    is_kept = isinstance(spec, CandidatesSpec)  # each as a file
    return parts.settings.max_candidate_images if is_kept else parts.settings.max_evaluation_images


def _problems_of_size(spec: Contest, at_most: int) -> Iterator[FieldProblem]:
    """Of how many images it is; a prompt file of the workers' own machine is counted by nobody before it is read."""
    total = spec.num_images
    if total is not None and total > at_most:
        each = len(spec.contenders) * spec.seeds_per_prompt
        message = (
            f"{len(spec.contenders)} contenders x {total // each:,} prompts x {spec.seeds_per_prompt} seeds are {total:,} images, and "
            f"this server draws at most {at_most:,} at once: take fewer prompts or seeds"
        )
        yield FieldProblem(pointer="/spec/prompts", code="too_many_images", message=message)


def validated(
    parts: Parts, project_id: str, body: Any, request: type[ContestRequest], answer: type[AnyValidation]
) -> AnyValidation:
    """Everything that can be said of a body for `POST /v1/evaluations` or `/v1/candidates` without storing it."""
    try:
        spec = admitted(parts, project_id, request.model_validate(body).spec)
    except ValidationError as error:
        errors = field_problems(error, body, request)
    except ApiError as error:
        errors = list(error.errors)
    else:
        told = dict.fromkeys(one for contender in spec.contenders for one in unread(parts, project_id, contender))
        estimate = estimate_of_evaluation(parts, project_id, spec)
        found = {"valid": True, "errors": [], "warnings": list(told), "resolved_spec": spec, "estimate": estimate}
        return answer.model_validate(found)
    return answer.model_validate(
        {"valid": False, "errors": errors, "warnings": [], "resolved_spec": None, "estimate": None}
    )
