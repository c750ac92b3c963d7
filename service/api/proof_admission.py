"""Whether an evaluation would be taken, before anything is queued."""

from typing import Any

from pydantic import ValidationError

from alignment_core.spec import ProofSpec
from service.api.contenders import resolved_contenders
from service.api.context import Parts
from service.api.model_reports import unread
from service.api.proof_estimates import estimate_of_evaluation, problems_of_fit
from service.api.schemas.evaluations import EvaluationRequest, EvaluationValidation
from service.errors import ApiError, field_problems, invalid_request


def admitted(parts: Parts, project_id: str, spec: ProofSpec) -> ProofSpec:
    """The spec as a worker runs it; raises 422 with everything that keeps this server from running it."""
    resolved = resolved_contenders(parts, project_id, spec)
    if unfit := list(problems_of_fit(parts, project_id, resolved)):
        raise invalid_request(unfit)
    return resolved


def validated(parts: Parts, project_id: str, body: Any) -> EvaluationValidation:
    """Everything that can be said of a body for `POST /v1/evaluations` without storing it."""
    try:
        spec = admitted(parts, project_id, EvaluationRequest.model_validate(body).spec)
    except ValidationError as error:
        errors = field_problems(error, body, EvaluationRequest)
    except ApiError as error:
        errors = list(error.errors)
    else:
        told = dict.fromkeys(one for contender in spec.contenders for one in unread(parts, project_id, contender))
        estimate = estimate_of_evaluation(parts, project_id, spec)
        return EvaluationValidation(valid=True, errors=[], warnings=list(told), resolved_spec=spec, estimate=estimate)
    return EvaluationValidation(valid=False, errors=errors, warnings=[], resolved_spec=None, estimate=None)
