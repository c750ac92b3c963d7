"""Whatever is sent, the API answers what its OpenAPI document says (schemathesis)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from schemathesis.specs.openapi.schemas import APIOperation, OpenApiSchema
from starlette.testclient import TestClient

from service.api.waiting import LONGEST_WAIT_SECONDS
from service.main import create_app
from service.store import projects
from service.store.migrations import migrate
from service.store.projects import DEFAULT_PROJECT_ID
from tests.service.api.seeds import settings_in, sow
from tests.service.api.world import Api

# What is well formed may still name something that is not there, or more warm-up than steps.
JUDGED_BY_MORE_THAN_FORM = (
    "POST /v1/jobs",
    "POST /v1/sweeps",
    "POST /v1/checkpoints/{checkpoint_id}/fork",
    "POST /v1/datasets",
    "POST /v1/weights",
    "POST /v1/prompt_sets",
    "POST /v1/uploads",  # a file may be too large, an Idempotency-Key may have come before with another request
    "PATCH /v1/uploads/{upload_id}",  # a piece goes where the last one ended
    "POST /v1/uploads/{upload_id}/finish",  # once all has arrived
    "GET /v1/jobs/{job_id}/events",
    "GET /v1/jobs/{job_id}/metrics",  # a table has whole rows, which extremes are not
    "POST /v1/evaluations",
    "POST /v1/evaluations/{evaluation_id}/verify",  # an Idempotency-Key may have come before with another request
    "POST /v1/candidates",
    "POST /v1/playground",
    "POST /v1/labelings",
    "POST /v1/labelings/{labeling_id}/dataset",  # an Idempotency-Key may have come before with another request
    "GET /v1/labelings",  # with keys the key says who judges
    "GET /v1/labelings/{labeling_id}",
    "GET /v1/labelings/{labeling_id}/next",
    "PUT /v1/labelings/{labeling_id}/votes/{question}",
    "DELETE /v1/labelings/{labeling_id}/votes/{question}",
    "POST /v1/links",  # for files and streams alone
    "POST /v1/promotions",  # an Idempotency-Key may have come before with another request
    "POST /v1/webhooks",  # an address must be one, of the internet
    "PUT /v1/webhooks/{webhook_id}",
    "GET /v1/checkpoints/{checkpoint_id}/exports",
    "GET /v1/jobs/{job_id}/metrics",  # its keys are those of the job
)

SAID_OF_ANY_TEXT = {"type", "title", "description", "examples"}

LONGEST_WAIT_HERE = 0.05  # seconds: what never ends here (an export without a worker) would be waited for in full

SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate],
}


@dataclass(frozen=True)
class Contract:
    """The document, and the headers that open the project it was seeded in."""

    schema: OpenApiSchema
    headers: dict[str, str]


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    """The document of a service that holds one of everything, whose ids take the place of half of the generated ones."""
    values = settings_in(tmp_path_factory.mktemp("data"))
    migrate(values.resolved_database_url)
    app = create_app(values)
    key, _ = projects.create_key(app.state.parts.store, DEFAULT_PROJECT_ID, "contract")
    authorization = {"Authorization": f"Bearer {key}"}
    known = sow(Api(TestClient(app, headers=authorization)))
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)

    schema.config.generation.update(with_security_parameters=False)  # every case is sent with the real key

    @schema.hook
    def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
        if path_parameters is None:
            return None
        return {
            name: known.get(name, value) if len(str(value)) % 2 else value for name, value in path_parameters.items()
        }

    @schema.hook
    def map_query(context: Any, query: dict[str, Any] | None) -> dict[str, Any] | None:
        if query and isinstance(query.get("wait"), int | float) and 0 <= query["wait"] <= LONGEST_WAIT_SECONDS:
            return query | {"wait": min(query["wait"], LONGEST_WAIT_HERE)}
        return query

    return Contract(schema, authorization)


def inputs_of(operation: APIOperation) -> list[dict[str, Any]]:
    """The schemas of all that a request may say beside its key."""
    parameters = [*operation.path_parameters, *operation.query, *operation.headers]
    return [
        *(one.definition.get("schema", {}) for one in parameters if one.name != "Authorization"),
        *(one.definition for one in operation.body),
    ]


def modes_of(operation: APIOperation) -> list[GenerationMode]:
    """Where all inputs are ids in the path, any text is well formed: looking for what is not costs a second each time."""
    only_text = not operation.query and all(
        one.get("type") == "string" and one.keys() <= SAID_OF_ANY_TEXT for one in inputs_of(operation)
    )
    return [GenerationMode.POSITIVE] if only_text else list(GenerationMode)


def is_judged_by_more_than_form(operation: APIOperation) -> bool:
    """Those of the list, and lists: a short one knows what `after` may name."""
    return operation.label in JUDGED_BY_MORE_THAN_FORM or any(one.name == "after" for one in operation.query)


def keep_contract(contract: Contract, num_examples: Callable[[APIOperation], int]) -> None:
    """Send generated cases, valid and not, to every operation; every breach of the document is reported at once.

    What deletes comes last: the others shall find what they name.
    """
    breaches: list[str] = []
    operations = [found.ok() for found in contract.schema.get_all_operations()]
    for operation in sorted(operations, key=lambda one: one.method.upper() == "DELETE"):
        for mode in modes_of(operation):

            @settings(max_examples=num_examples(operation), **SETTINGS)
            @given(case=operation.as_strategy(generation_mode=mode))
            def send(case: schemathesis.Case) -> None:
                excluded = [positive_data_acceptance] if is_judged_by_more_than_form(case.operation) else []
                if case.operation.label in ("POST /v1/datasets", "POST /v1/weights", "POST /v1/prompt_sets"):
                    excluded.append(negative_data_rejection)  # a list in a form field is the text "[]"
                case.call_and_validate(headers=contract.headers, excluded_checks=excluded)

            try:
                send()
            except FailureGroup as error:
                breaches.append(f"{operation.label}: {error}")
            except Unsatisfiable:
                assert mode == GenerationMode.NEGATIVE, operation.label  # some requests have nothing to get wrong
    assert not breaches, "\n\n".join(breaches)


def test_every_operation_keeps_its_contract(contract: Contract):
    keep_contract(contract, lambda _: 6)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_operation_keeps_its_contract_at_length(contract: Contract):
    """A body is as much as four parameters: an id has few ways to be wrong, a job's spec has many."""
    keep_contract(contract, lambda one: 20 * min(4, 1 + len(inputs_of(one)) + 3 * bool(one.body)))
