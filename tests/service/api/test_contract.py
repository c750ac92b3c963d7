"""Whatever is sent, the API answers what its OpenAPI document says (schemathesis)."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.specs.openapi.schemas import OpenApiSchema

from service.main import create_app
from service.settings import Settings
from tests.service.api.world import CATALOG, Api

SETTINGS = {
    "deadline": None,
    "derandomize": True,
    "database": None,
    "suppress_health_check": list(HealthCheck),
    "phases": [Phase.explicit, Phase.generate],
}


@pytest.fixture(scope="module")
def app_schema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenApiSchema]:
    """The document of a service that holds one finished job, whose ids take the place of half of the generated ones."""
    from starlette.testclient import TestClient

    data_dir: Path = tmp_path_factory.mktemp("data")
    app = create_app(Settings(data_dir=data_dir, catalog_path=CATALOG))
    with TestClient(app) as client:
        api = Api(client)
        job_id = api.new_job()
        api.run(job_id)
        (sample,) = client.get(f"/v1/jobs/{job_id}/samples").json()["data"]
        known = {
            "job_id": job_id,
            "checkpoint_id": api.checkpoint_id(job_id),
            "dataset_id": api.ready_dataset(),
            "sample_id": sample["id"],
            "path": "manifest.json",
        }
        schema = schemathesis.openapi.from_asgi("/openapi.json", app)

        @schema.hook
        def map_path_parameters(context: Any, path_parameters: dict[str, Any] | None) -> dict[str, Any] | None:
            if path_parameters is None:
                return None
            return {name: known[name] if len(str(value)) % 2 else value for name, value in path_parameters.items()}

        yield schema


schema = schemathesis.pytest.from_fixture("app_schema")


@schema.parametrize()
@settings(max_examples=6, **SETTINGS)
def test_every_operation_keeps_its_contract(case: schemathesis.Case):
    case.call_and_validate()


@pytest.mark.slow
@schema.parametrize()
@settings(max_examples=150, **SETTINGS)
def test_every_operation_keeps_its_contract_at_length(case: schemathesis.Case):
    case.call_and_validate()
